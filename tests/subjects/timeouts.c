// cc: gcc -O1 -g -Wall
// Every way to sleep with a limit, each in a thread of its own, over and over: none may end early, late
// or interrupted. Argument: how many milliseconds late is too late (0: not looked at).
#include "subject.h"
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

static double late_ms;
static _Atomic double worst_ms;

static struct timespec span(long ms) { return (struct timespec){ms / 1000, ms % 1000 * 1000000}; }

static struct timespec from_now(clockid_t clock, long ms) {
    struct timespec time;
    clock_gettime(clock, &time);
    time.tv_nsec += ms % 1000 * 1000000;
    time.tv_sec += ms / 1000 + time.tv_nsec / 1000000000;
    time.tv_nsec %= 1000000000;
    return time;
}

// Each returns whether the call ended by its timeout, and by nothing else.
static int relative(long ms) {
    struct timespec time = span(ms);
    return nanosleep(&time, NULL) == 0;
}
static int absolute(long ms) {
    struct timespec time = from_now(CLOCK_MONOTONIC, ms);
    return (errno = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL)) == 0;
}
static int absolute_real(long ms) {
    struct timespec time = from_now(CLOCK_REALTIME, ms);
    return (errno = clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &time, NULL)) == 0;
}

static __thread int ends[2], poller = -1, timer = -1, sockets[2];
static void prepare(void) {
    MUST(pipe(ends) == 0);
    MUST((poller = epoll_create1(0)) >= 0);
    struct epoll_event event = {.events = EPOLLIN};
    MUST(epoll_ctl(poller, EPOLL_CTL_ADD, ends[0], &event) == 0);
    MUST((timer = timerfd_create(CLOCK_MONOTONIC, 0)) >= 0);
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0);
}

static int epoll_wait_(long ms) {
    struct epoll_event event;
    return epoll_wait(poller, &event, 1, ms) == 0;
}
static int epoll_pwait2_(long ms) {
    struct epoll_event event;
    struct timespec time = span(ms);
    return syscall(SYS_epoll_pwait2, poller, &event, 1, &time, NULL, 8) == 0;
}
static int poll_(long ms) {
    struct pollfd entry = {ends[0], POLLIN, 0};
    return poll(&entry, 1, ms) == 0;
}
static int ppoll_(long ms) {
    struct pollfd entry = {ends[0], POLLIN, 0};
    struct timespec time = span(ms);
    sigset_t mask;
    sigfillset(&mask);
    return ppoll(&entry, 1, &time, &mask) == 0;
}
static int select_(long ms) {
    fd_set set;
    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    struct timeval time = {ms / 1000, ms % 1000 * 1000};
    return select(ends[0] + 1, &set, NULL, NULL, &time) == 0;
}
static int semaphore(long ms) {
    sem_t none;
    sem_init(&none, 0, 0);
    struct timespec time = from_now(CLOCK_REALTIME, ms);
    return sem_timedwait(&none, &time) == -1 && errno == ETIMEDOUT;
}
static int condition(long ms) {
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t never = PTHREAD_COND_INITIALIZER;
    struct timespec time = from_now(CLOCK_REALTIME, ms);
    pthread_mutex_lock(&lock);
    return (errno = pthread_cond_timedwait(&never, &lock, &time)) == ETIMEDOUT;
}
static int futex(long ms) {
    int word = 7;
    struct timespec time = span(ms);
    return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 7, &time, NULL, 0) == -1 && errno == ETIMEDOUT;
}
static int receive(long ms) {
    char byte;
    struct timeval time = {ms / 1000, ms % 1000 * 1000};
    setsockopt(sockets[0], SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
    return recv(sockets[0], &byte, 1, 0) == -1 && errno == EAGAIN;
}
static int signal_wait(long ms) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    struct timespec time = span(ms);
    return sigtimedwait(&set, NULL, &time) == -1 && errno == EAGAIN;
}
static int timerfd(long ms) {
    struct itimerspec when = {.it_value = span(ms)};
    uint64_t times = 0;
    timerfd_settime(timer, 0, &when, NULL);
    return read(timer, &times, sizeof times) == sizeof times && times == 1;
}

static const struct {
    const char *name;
    int (*sleep)(long);
    // Absolute times on the wall clock are as exact as that clock is.
    double early_ms;
} ways[] = {
    {"nanosleep", relative, 0},
    {"clock_nanosleep absolute", absolute, 0},
    {"clock_nanosleep absolute, real time", absolute_real, 1},
    {"epoll_wait", epoll_wait_, 0.1},
    {"epoll_pwait2", epoll_pwait2_, 0},
    {"poll", poll_, 0.1},
    {"ppoll", ppoll_, 0},
    {"select", select_, 0},
    {"sem_timedwait", semaphore, 1},
    {"pthread_cond_timedwait", condition, 1},
    {"futex", futex, 0},
    // Counted in jiffies.
    {"recv with SO_RCVTIMEO", receive, 10},
    {"sigtimedwait", signal_wait, 0},
    {"timerfd", timerfd, 0},
};
enum { WAYS = sizeof ways / sizeof *ways };
static _Atomic int rounds[WAYS];

static void *torment(void *index) {
    int me = (long)index;
    prepare();
    for (;;) {
        long ms = 650 + 70 * me % 300;
        double start = now_ms(CLOCK_MONOTONIC);
        int right = ways[me].sleep(ms);
        int error = errno;
        double took = now_ms(CLOCK_MONOTONIC) - start;
        if (!right) fail("%s of %ld ms: ended after %.1f ms by %s", ways[me].name, ms, took, strerror(error));
        if (took < ms - ways[me].early_ms) fail("%s of %ld ms: early, after %.3f", ways[me].name, ms, took);
        if (took - ms > worst_ms) worst_ms = took - ms;
        if (late_ms > 0 && took > ms + late_ms) fail("%s of %ld ms: late, after %.3f", ways[me].name, ms, took);
        rounds[me]++;
    }
}

int main(int count, char **args) {
    if (count > 1) late_ms = atof(args[1]);
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGUSR2);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    for (long i = 0; i < WAYS; i++) {
        pthread_t thread;
        MUST(pthread_create(&thread, NULL, torment, (void *)i) == 0);
    }
    until_told();
    int before[WAYS];
    for (int i = 0; i < WAYS; i++) before[i] = rounds[i];
    for (int i = 0; i < WAYS; i++)
        for (int patience = 0; rounds[i] == before[i]; patience++) {
            if (patience > 400) fail("%s stands still", ways[i].name);
            sleep_ms(10);
        }
    printf("latest by %.1f ms\n", worst_ms);
    fflush(stdout);
    return ok();
}
