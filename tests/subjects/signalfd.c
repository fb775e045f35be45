// cc: gcc -O1 -g -Wall
// signalfds: their masks, and signals that wait to be read through them.
#include "subject.h"
#include <sys/signalfd.h>

int main(void) {
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigaddset(&mask, SIGRTMIN + 2);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    int fd = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
    MUST(fd >= 0 && kill(getpid(), SIGUSR1) == 0);
    MUST(sigqueue(getpid(), SIGRTMIN + 2, (union sigval){.sival_int = 42}) == 0);
    until_told();
    struct signalfd_siginfo info;
    MUST(read(fd, &info, sizeof info) == sizeof info && info.ssi_signo == SIGUSR1);
    MUST(read(fd, &info, sizeof info) == sizeof info && info.ssi_int == 42 && info.ssi_pid == (unsigned)getpid());
    MUST(read(fd, &info, sizeof info) == -1 && errno == EAGAIN && fcntl(fd, F_GETFD) == FD_CLOEXEC);
    return ok();
}
