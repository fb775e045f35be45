// cc: gcc -O1 -g -Wall
// Kinds: external
// Standard streams whose far ends a supervisor holds: numbered lines on both outputs, for ever, with a
// duplicate of one; input that has ended stays so. Run plainly, they are whatever it was given.
#include "subject.h"
#include <sys/stat.h>

int main(void) {
    struct stat before[3], after[3];
    for (int fd = 0; fd < 3; fd++) MUST(fstat(fd, &before[fd]) == 0);
    int copy = fcntl(1, F_DUPFD_CLOEXEC, 100), modes[3];
    for (int fd = 0; fd < 3; fd++) modes[fd] = fcntl(fd, F_GETFL);
    say("READY");
    for (int number = 0; !told; number++) {
        char line[40];
        int length = snprintf(line, sizeof line, "line %d\n", number);
        MUST(write(number % 2 ? copy : 2, line, length) == length);
        sleep_ms(5);
    }
    for (int fd = 0; fd < 3; fd++) {
        MUST(fstat(fd, &after[fd]) == 0 && (after[fd].st_mode & S_IFMT) == (before[fd].st_mode & S_IFMT));
        MUST(fcntl(fd, F_GETFL) == modes[fd]);
    }
    struct stat other;
    MUST(fstat(copy, &other) == 0 && other.st_ino == after[1].st_ino && fcntl(copy, F_GETFD) == FD_CLOEXEC);
    char byte;
    MUST(read(0, &byte, 1) == 0);
    return ok();
}
