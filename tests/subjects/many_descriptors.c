// cc: gcc -O1 -g -Wall
// As many descriptors as the argument says: files at their positions, pipes with a byte in them,
// eventfds with their counts, and duplicates that share a position.
#include "subject.h"
#include <sys/eventfd.h>
#include <sys/resource.h>

int main(int argc, char **argv) {
    int count = argc > 1 ? atoi(argv[1]) : 10000;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = count + 64 < (int)limit.rlim_max ? count + 64 : limit.rlim_max;
    MUST(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    int *fds = calloc(count, sizeof *fds), made = 0;
    while (made + 5 <= count) {
        int ends[2], number = made;
        MUST((fds[made++] = open("/proc/self/exe", O_RDONLY | (number % 2 ? O_CLOEXEC : 0))) >= 0);
        MUST(lseek(fds[number], number, SEEK_SET) == number);
        MUST((fds[made++] = dup(fds[number])) >= 0);
        MUST((fds[made++] = eventfd(number + 1, EFD_NONBLOCK)) >= 0);
        MUST(pipe(ends) == 0);
        fds[made++] = ends[0], fds[made++] = ends[1];
        MUST(write(ends[1], &number, sizeof number) == sizeof number);
    }
    until_told();
    for (int i = 0; i + 5 <= count; i += 5) {
        uint64_t value = 0;
        int number = -1;
        MUST(lseek(fds[i], 0, SEEK_CUR) == i);
        MUST(lseek(fds[i + 1], 3, SEEK_CUR) == i + 3 && lseek(fds[i], 0, SEEK_CUR) == i + 3);
        MUST(fcntl(fds[i], F_GETFD) == (i % 2 ? FD_CLOEXEC : 0));
        MUST(read(fds[i + 2], &value, 8) == 8 && value == (uint64_t)i + 1);
        MUST(read(fds[i + 3], &number, sizeof number) == sizeof number && number == i);
    }
    return ok();
}
