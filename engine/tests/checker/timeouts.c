// One thread for each way to wait with a relative timeout of a second; each tells how long it took and
// whether the call left its argument's register alone.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const struct timespec second = {1, 0};
static int silent[2], epoll, semaphores, word;
static volatile int ending;

// The raw call; tells whether rdx and r10, where these calls have their timeouts, are as before.
static long raw(long nr, long a, long b, long c, long d, long e, int *kept) {
    register long rdx __asm__("rdx") = c, r10 __asm__("r10") = d, r8 __asm__("r8") = e;
    register long rdi __asm__("rdi") = a, rsi __asm__("rsi") = b;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result), "+r"(rdi), "+r"(rsi), "+r"(rdx), "+r"(r10), "+r"(r8)
                     : "0"(nr)
                     : "rcx", "r11", "memory");
    *kept = rdi == a && rsi == b && rdx == c && r10 == d && r8 == e;
    return result;
}

static struct epoll_event event;
static struct pollfd polled;
static struct sembuf down = {0, -1, 0};
static sigset_t nothing;
static char byte;
static int limited[2], listening;

static const struct { const char *name; long nr; long arguments[5]; long answer; } calls[] = {
    {"epoll_wait", SYS_epoll_wait, {-1, (long)&event, 1, 1000}, 0},
    {"epoll_pwait", SYS_epoll_pwait, {-1, (long)&event, 1, 1000, 0}, 0},
    {"epoll_pwait2", 441, {-1, (long)&event, 1, (long)&second, 0}, 0},
    {"semtimedop", SYS_semtimedop, {-2, (long)&down, 1, (long)&second}, -EAGAIN},
    {"rt_sigtimedwait", SYS_rt_sigtimedwait, {(long)&nothing, 0, (long)&second, 8}, -EAGAIN},
    {"recvfrom", SYS_recvfrom, {-3, (long)&byte, 1, 0, 0}, -EAGAIN},
    {"read", SYS_read, {-3, (long)&byte, 1}, -EAGAIN},
    {"accept", SYS_accept, {-4, 0, 0}, -EAGAIN},
    {"poll", SYS_poll, {(long)&polled, 1, 1000}, 0},
    {"nanosleep", SYS_nanosleep, {(long)&second, 0}, 0},
    {"clock_nanosleep", SYS_clock_nanosleep, {CLOCK_MONOTONIC, 0, (long)&second, 0}, 0},
    {"futex", SYS_futex, {(long)&word, FUTEX_WAIT, 0, (long)&second}, -ETIMEDOUT},
};

static void *run(void *x) {
    long i = (long)x, a = calls[i].arguments[0];
    a = a == -1 ? epoll : a == -2 ? semaphores : a == -3 ? limited[0] : a == -4 ? listening : a;
    const long *b = calls[i].arguments;
    for (;;) {
        struct timespec from, to;
        int kept;
        clock_gettime(CLOCK_MONOTONIC, &from);
        long answer = raw(calls[i].nr, a, b[1], b[2], b[3], b[4], &kept);
        clock_gettime(CLOCK_MONOTONIC, &to);
        if (ending) pause();
        long ms = (to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000;
        const char *right = answer == calls[i].answer && kept ? "right" : "wrong";
        printf("%s %ld %s\n", calls[i].name, ms, right);
        fflush(stdout);
    }
}

int main(void) {
    if (pipe(silent)) abort();
    polled = (struct pollfd){silent[0], POLLIN, 0};
    epoll = epoll_create1(0);
    event.events = EPOLLIN;
    epoll_ctl(epoll, EPOLL_CTL_ADD, silent[0], &event);
    semaphores = semget(IPC_PRIVATE, 1, 0600);
    struct timeval limit = {1, 0};
    struct sockaddr unnamed = {.sa_family = AF_UNIX};
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, limited)) abort();
    listening = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(listening, &unnamed, sizeof unnamed.sa_family) || listen(listening, 1)) abort();
    setsockopt(limited[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(listening, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    sigaddset(&nothing, SIGUSR2);
    sigprocmask(SIG_BLOCK, &nothing, 0);
    pthread_t thread;
    for (long i = 0; i < (long)(sizeof calls / sizeof *calls); i++)
        pthread_create(&thread, 0, run, (void *)i);
    sleep(4);
    ending = 1;
    semctl(semaphores, 0, IPC_RMID);
}
