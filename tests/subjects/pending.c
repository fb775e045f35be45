// cc: gcc -O1 -g -Wall
// Signals that wait: shared and private queues, real-time order and values, masks, handlers, alternate
// stack, and the interval and POSIX timers that will bring more.
#include "subject.h"
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/time.h>

static pthread_barrier_t ready_line, check_line;
static timer_t posix_timer;
static char stack[65536];

static void never(int signal) { fail("signal %d was delivered", signal); }

static void expect(int signal, int value, int code) {
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, signal);
    siginfo_t info;
    struct timespec now = {0, 0};
    // Not glibc's, which passes SI_TKILL off as SI_USER.
    int got = syscall(SYS_rt_sigtimedwait, &one, &info, &now, 8);
    if (got != signal) fail("signal %d is not pending", signal);
    if (info.si_code != code) fail("signal %d: si_code %d, not %d", signal, info.si_code, code);
    if (code == SI_QUEUE && info.si_value.sival_int != value)
        fail("signal %d: value %d, not %d", signal, info.si_value.sival_int, value);
    if (info.si_pid != getpid()) fail("signal %d: sent by %d", signal, info.si_pid);
}

static void expect_none(int signal) {
    sigset_t pending;
    sigpending(&pending);
    if (sigismember(&pending, signal)) fail("signal %d is pending, unasked", signal);
}

static void *other(void *unused) {
    (void)unused;
    MUST(pthread_kill(pthread_self(), SIGUSR2) == 0);
    pthread_barrier_wait(&ready_line);
    pthread_barrier_wait(&check_line);
    expect(SIGUSR2, 0, SI_TKILL);
    expect_none(SIGUSR2);
    return NULL;
}

int main(void) {
    sigset_t mask, seen;
    sigemptyset(&mask);
    int blocked[] = {SIGUSR1, SIGUSR2, SIGHUP, SIGRTMIN, SIGRTMIN + 3, SIGRTMAX, SIGALRM};
    for (unsigned i = 0; i < sizeof blocked / sizeof *blocked; i++) {
        sigaddset(&mask, blocked[i]);
        signal(blocked[i], never);
    }
    sigprocmask(SIG_SETMASK, &mask, NULL);
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    MUST(sigaltstack(&alternate, NULL) == 0);
    signal(SIGPIPE, SIG_IGN);
    struct sigaction flags = {.sa_handler = never, .sa_flags = SA_ONSTACK | SA_NODEFER | SA_RESETHAND};
    sigaddset(&flags.sa_mask, SIGRTMAX);
    MUST(sigaction(SIGVTALRM, &flags, NULL) == 0);

    pthread_barrier_init(&ready_line, NULL, 2);
    pthread_barrier_init(&check_line, NULL, 2);
    pthread_t thread;
    leave_term();
    sigaddset(&mask, SIGTERM);
    MUST(pthread_create(&thread, NULL, other, NULL) == 0);
    pthread_barrier_wait(&ready_line);

    kill(getpid(), SIGUSR1);
    for (int i = 0; i < 5; i++) MUST(sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 100 + i}) == 0);
    MUST(sigqueue(getpid(), SIGRTMAX, (union sigval){.sival_int = -7}) == 0);
    MUST(syscall(SYS_tgkill, getpid(), getpid(), SIGHUP) == 0);
    struct itimerval far = {.it_value = {5000, 0}, .it_interval = {7, 250000}};
    MUST(setitimer(ITIMER_REAL, &far, NULL) == 0);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 3, .sigev_value = {.sival_int = 9}};
    MUST(timer_create(CLOCK_MONOTONIC, &event, &posix_timer) == 0);
    struct itimerspec later = {.it_value = {5000, 0}, .it_interval = {3, 5}};
    MUST(timer_settime(posix_timer, 0, &later, NULL) == 0);

    until_told();

    sigprocmask(SIG_SETMASK, NULL, &seen);
    for (int i = 1; i < 65; i++)
        if (sigismember(&seen, i) != sigismember(&mask, i) && i != 32 && i != 33) fail("mask of signal %d", i);
    expect(SIGUSR1, 0, SI_USER);
    for (int i = 0; i < 5; i++) expect(SIGRTMIN, 100 + i, SI_QUEUE);
    expect(SIGRTMAX, -7, SI_QUEUE);
    expect(SIGHUP, 0, SI_TKILL);
    for (unsigned i = 0; i < sizeof blocked / sizeof *blocked; i++) expect_none(blocked[i]);
    pthread_barrier_wait(&check_line);
    pthread_join(thread, NULL);

    struct sigaction action;
    sigaction(SIGVTALRM, NULL, &action);
    MUST(action.sa_handler == never && (action.sa_flags & (SA_ONSTACK | SA_NODEFER | SA_RESETHAND)) ==
                                           (int)(SA_ONSTACK | SA_NODEFER | SA_RESETHAND));
    MUST(sigismember(&action.sa_mask, SIGRTMAX) == 1);
    sigaction(SIGPIPE, NULL, &action);
    MUST(action.sa_handler == SIG_IGN);
    sigaltstack(NULL, &alternate);
    MUST(alternate.ss_sp == stack && alternate.ss_size == sizeof stack);
    getitimer(ITIMER_REAL, &far);
    MUST(far.it_value.tv_sec > 4000 && far.it_interval.tv_sec == 7 && far.it_interval.tv_usec == 250000);
    MUST(timer_gettime(posix_timer, &later) == 0);
    MUST(later.it_value.tv_sec > 4000 && later.it_interval.tv_sec == 3 && later.it_interval.tv_nsec == 5);
    return ok();
}
