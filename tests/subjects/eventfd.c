// cc: gcc -O1 -g -Wall
// eventfds: their count, whether they are semaphores, their flags.
#include "subject.h"
#include <sys/eventfd.h>

int main(void) {
    int plain = eventfd(0, EFD_NONBLOCK), semaphore = eventfd(3, EFD_SEMAPHORE | EFD_CLOEXEC), same = dup(plain);
    uint64_t value = 0x123456789;
    MUST(write(plain, &value, 8) == 8);
    until_told();
    MUST(read(same, &value, 8) == 8 && value == 0x123456789);
    MUST(read(plain, &value, 8) == -1 && errno == EAGAIN);
    for (int i = 0; i < 3; i++) MUST(read(semaphore, &value, 8) == 8 && value == 1);
    MUST(fcntl(semaphore, F_GETFD) == FD_CLOEXEC && fcntl(plain, F_GETFD) == 0);
    MUST(!(fcntl(semaphore, F_GETFL) & O_NONBLOCK));
    return ok();
}
