// cc: gcc -O1 -g -Wall
// Every way to sleep with a limit, each in a thread of its own, over and over: none may end early, late
// or interrupted. Argument: how many milliseconds late is too late for any (0: not looked at); a tenth of that
// is too late for most. Time in which the whole program stood still does not count: pacers, which wake every
// millisecond, know when that was. Nor does time in which a thread waited for a processor.
#include "subject.h"
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>

static double late_ms;
static _Atomic double worst_ms;
static _Atomic int waits, late_waits;

// When a pacer woke last, and the latest times in which it slept for longer than it wanted.
enum { PACERS = 2, GAPS = 64 };
static const double LONG_MS = 3;
static struct pacer {
    pthread_mutex_t lock;
    double last;
    struct gap { double from, to; } gaps[GAPS];
    int next;
} pacers[PACERS] = {{.lock = PTHREAD_MUTEX_INITIALIZER}, {.lock = PTHREAD_MUTEX_INITIALIZER}};

__attribute__((noreturn)) static void *pace(void *pacer_) {
    struct pacer *pacer = pacer_;
    for (;;) {
        double now = now_ms(CLOCK_MONOTONIC);
        pthread_mutex_lock(&pacer->lock);
        if (pacer->last && now - pacer->last > LONG_MS) {
            pacer->gaps[pacer->next++ % GAPS] = (struct gap){pacer->last, now};
        }
        pacer->last = now;
        pthread_mutex_unlock(&pacer->lock);
        sleep_ms(1);
    }
}

static double overlap(struct gap gap, double from, double to) {
    double start = gap.from > from ? gap.from : from, end = gap.to < to ? gap.to : to;
    return end > start ? end - start : 0;
}

// For how long this thread has waited for a processor, in all.
static double starved(void) {
    char text[100] = "";
    double ran, waited = 0;
    int file = open("/proc/thread-self/schedstat", O_RDONLY);
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    return length > 0 && sscanf(text, "%lf %lf", &ran, &waited) == 2 ? waited / 1e6 : 0;
}

// For how long between these times a pacer stood still.
static double standstill(double from, double to) {
    double most = 0;
    for (int i = 0; i < PACERS; i++) {
        struct pacer *pacer = &pacers[i];
        pthread_mutex_lock(&pacer->lock);
        struct gap last = {pacer->last, to};
        double sum = last.to - last.from > LONG_MS ? overlap(last, from, to) : 0;
        for (int j = 0; j < GAPS; j++) sum += overlap(pacer->gaps[j], from, to);
        pthread_mutex_unlock(&pacer->lock);
        if (sum > most) most = sum;
    }
    return most;
}

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
static int relative_on_clock(long ms) {
    struct timespec time = span(ms);
    return (errno = clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL)) == 0;
}
static int absolute(long ms) {
    struct timespec time = from_now(CLOCK_MONOTONIC, ms);
    return (errno = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL)) == 0;
}
static int absolute_real(long ms) {
    struct timespec time = from_now(CLOCK_REALTIME, ms);
    return (errno = clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &time, NULL)) == 0;
}

static __thread int ends[2], poller = -1, timer = -1, sockets[2], listening = -1;
static void prepare(void) {
    MUST(pipe(ends) == 0);
    MUST((poller = epoll_create1(0)) >= 0);
    struct epoll_event event = {.events = EPOLLIN};
    MUST(epoll_ctl(poller, EPOLL_CTL_ADD, ends[0], &event) == 0);
    MUST((timer = timerfd_create(CLOCK_MONOTONIC, 0)) >= 0);
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0);
    // Bound to a name that the kernel chooses, and listening to nobody.
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    MUST((listening = socket(AF_UNIX, SOCK_STREAM, 0)) >= 0);
    MUST(bind(listening, (struct sockaddr *)&name, sizeof name.sun_family) == 0);
    MUST(listen(listening, 1) == 0);
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
static int epoll_pwait_(long ms) {
    struct epoll_event event;
    sigset_t mask;
    sigfillset(&mask);
    return epoll_pwait(poller, &event, 1, ms, &mask) == 0;
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
static int pselect_(long ms) {
    fd_set set;
    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    struct timespec time = span(ms);
    return pselect(ends[0] + 1, &set, NULL, NULL, &time, NULL) == 0;
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
static void limit(int socket, int option, long ms) {
    struct timeval time = {ms / 1000, ms % 1000 * 1000};
    MUST(setsockopt(socket, SOL_SOCKET, option, &time, sizeof time) == 0);
}
static int receive(long ms) {
    char byte;
    limit(sockets[0], SO_RCVTIMEO, ms);
    return recv(sockets[0], &byte, 1, 0) == -1 && errno == EAGAIN;
}
static int read_socket(long ms) {
    char byte;
    limit(sockets[0], SO_RCVTIMEO, ms);
    return read(sockets[0], &byte, 1) == -1 && errno == EAGAIN;
}
static int receive_message(long ms) {
    char byte;
    struct iovec vector = {&byte, 1};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    limit(sockets[0], SO_RCVTIMEO, ms);
    return recvmsg(sockets[0], &message, 0) == -1 && errno == EAGAIN;
}
static int accept_(long ms) {
    limit(listening, SO_RCVTIMEO, ms);
    return accept(listening, NULL, NULL) == -1 && errno == EAGAIN;
}
static int semop_(long ms) {
    static __thread int set = -1;
    if (set < 0) {
        MUST((set = semget(IPC_PRIVATE, 1, 0600)) >= 0);
    }
    struct sembuf wish = {0, -1, 0};
    struct timespec time = span(ms);
    return semtimedop(set, &wish, 1, &time) == -1 && errno == EAGAIN;
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
    // The timer wheel counts in steps: 32 ms, of a wait of 800 ms and 250 jiffies a second.
    double late_ms;
} ways[] = {
    {"nanosleep", relative, 0},
    {"clock_nanosleep", relative_on_clock, 0},
    {"clock_nanosleep absolute", absolute, 0},
    {"clock_nanosleep absolute, real time", absolute_real, 1},
    {"epoll_wait", epoll_wait_, 0.1},
    {"epoll_pwait2", epoll_pwait2_, 0},
    {"epoll_pwait", epoll_pwait_, 0.1},
    {"poll", poll_, 0.1},
    {"ppoll", ppoll_, 0},
    {"select", select_, 0},
    {"pselect", pselect_, 0},
    {"sem_timedwait", semaphore, 1},
    {"pthread_cond_timedwait", condition, 1},
    {"futex", futex, 0},
    {"recv with SO_RCVTIMEO", receive, 10, 40},
    {"read with SO_RCVTIMEO", read_socket, 10, 40},
    {"recvmsg with SO_RCVTIMEO", receive_message, 10, 40},
    {"accept with SO_RCVTIMEO", accept_, 10, 40},
    {"semtimedop", semop_, 0},
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
        double waited = starved(), start = now_ms(CLOCK_MONOTONIC);
        int right = ways[me].sleep(ms);
        int error = errno;
        double took = now_ms(CLOCK_MONOTONIC) - start;
        waited = starved() - waited;
        if (!right) fail("%s of %ld ms: ended after %.1f ms by %s", ways[me].name, ms, took, strerror(error));
        if (took < ms - ways[me].early_ms) fail("%s of %ld ms: early, after %.3f", ways[me].name, ms, took);
        double late = took - ms - ways[me].late_ms - standstill(start + ms, start + took) - waited;
        if (late > worst_ms) worst_ms = late;
        if (late_ms > 0 && late > late_ms) fail("%s of %ld ms: late by %.3f, after %.3f", ways[me].name, ms, late, took);
        waits++;
        if (late > late_ms / 10) late_waits++;
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
    for (int i = 0; i < PACERS; i++) {
        pthread_t thread;
        MUST(pthread_create(&thread, NULL, pace, &pacers[i]) == 0);
    }
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
    printf("latest by %.1f ms; %d of %d later than a tenth of what is too late\n", worst_ms, late_waits, waits);
    fflush(stdout);
    if (late_ms > 0 && late_waits * 2 > waits) fail("most are late");
    return ok();
}
