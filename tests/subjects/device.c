// cc: gcc -O1 -g -Wall
// The devices without state: null, zero, full, random, urandom.
#include "subject.h"

int main(void) {
    int null = open("/dev/null", O_RDWR), zero = open("/dev/zero", O_RDONLY), full = open("/dev/full", O_RDWR);
    int random_ = open("/dev/random", O_RDONLY | O_NONBLOCK), urandom = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    until_told();
    char bytes[16] = "not zero";
    MUST(write(null, bytes, 8) == 8 && read(null, bytes, 8) == 0);
    MUST(read(zero, bytes, 16) == 16 && bytes[0] == 0 && bytes[15] == 0);
    MUST(write(full, bytes, 1) == -1 && errno == ENOSPC);
    MUST(read(random_, bytes, 16) == 16 && read(urandom, bytes, 16) == 16);
    MUST(fcntl(urandom, F_GETFD) == FD_CLOEXEC && (fcntl(random_, F_GETFL) & O_NONBLOCK));
    return ok();
}
