// Fourteen threads that check that no call misbehaves, no register changes and nobody stalls, whatever is
// done to them from outside. Each counts its rounds, the EINTRs it saw and its errors; once a second
// a line tells all. Errors are told at once. (A sleep that is too short, a byte that is lost, a flag of
// the processor that flips: all are errors.)
#define _GNU_SOURCE
#include <errno.h>
#include <immintrin.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 14 };
static volatile uint64_t rounds[THREADS], errors[THREADS], eintrs[THREADS];
#define FAIL(i, ...) (errors[i]++, dprintf(2, "FAIL[%ld] ", i), dprintf(2, __VA_ARGS__), dprintf(2, "\n"))

static double ms_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static uint64_t one, two;
static int turn;
static __thread uint64_t own;

static void *locks(void *x) {
    long i = (long)x;
    for (own = i * 77;; rounds[i]++) {
        pthread_mutex_lock(&mutex);
        if (one != two) FAIL(i, "two halves of a change seen");
        one++;
        for (volatile int k = 0; k < 20; k++);
        two++;
        pthread_mutex_unlock(&mutex);
        if (own != (uint64_t)i * 77) FAIL(i, "thread-local storage");
        if ((rounds[i] & 1023) == 0) usleep(100);
    }
}

static void *sleeps(void *x) {
    long i = (long)x;
    for (;; rounds[i]++) {
        struct timespec t = {0, 2000000};
        double start = ms_now();
        int r = nanosleep(&t, NULL);
        double took = ms_now() - start;
        if (r) errno == EINTR ? (void)eintrs[i]++ : (void)FAIL(i, "nanosleep %d", errno);
        else if (took < 2.0) FAIL(i, "slept %f", took);
    }
}

static void *polls(void *x) {
    long i = (long)x;
    int p[2];
    if (pipe(p)) abort();
    for (;; rounds[i]++) {
        struct pollfd f = {p[0], POLLIN, 0};
        double start = ms_now();
        int r = poll(&f, 1, 5);
        double took = ms_now() - start;
        if (r < 0) errno == EINTR ? (void)eintrs[i]++ : (void)FAIL(i, "poll %d", errno);
        else if (r > 0) FAIL(i, "poll says %d", r);
        else if (took < 4.9) FAIL(i, "polled %f", took);
    }
}

static int numbers[2];

static void *reads(void *x) {
    long i = (long)x;
    uint32_t want = 0, got;
    for (;; rounds[i]++) {
        int r = read(numbers[0], &got, 4);
        if (r < 0) { eintrs[i]++; continue; }
        if (r != 4 || got != want) FAIL(i, "read %d bytes, %u for %u", r, got, want);
        want = got + 1;
    }
}

static void *writes(void *x) {
    long i = (long)x;
    for (uint32_t v = 0;; rounds[i]++) {
        int r = write(numbers[1], &v, 4);
        if (r < 0) { eintrs[i]++; continue; }
        if (r != 4) FAIL(i, "wrote %d", r);
        if ((++v & 15) == 0) usleep(700);
    }
}

static void *waits_for_turn(void *x) {
    long i = (long)x;
    for (;; rounds[i]++) {
        pthread_mutex_lock(&mutex);
        while (turn != 1) pthread_cond_wait(&condition, &mutex);
        turn = 0;
        pthread_mutex_unlock(&mutex);
    }
}

static void *gives_turns(void *x) {
    long i = (long)x;
    for (;; rounds[i]++) {
        pthread_mutex_lock(&mutex);
        turn = 1;
        pthread_cond_signal(&condition);
        pthread_mutex_unlock(&mutex);
        struct timespec t = {0, 900000};
        nanosleep(&t, 0);
    }
}

static void *vectors(void *x) {
    long i = (long)x;
    __m256d v = _mm256_set_pd(1.5, 2.5, 3.5, 4.5), w = v;
    double s = 0.25;
    for (;; rounds[i]++) {
        for (int k = 0; k < 1000; k++) {
            __asm__ volatile("" : "+x"(w), "+x"(s));
            s = s * 2;
            s = s * 0.5;
            w = _mm256_sub_pd(_mm256_add_pd(w, v), v);
        }
        double o[4];
        _mm256_storeu_pd(o, w);
        if (s != 0.25 || o[0] != 4.5 || o[3] != 1.5) FAIL(i, "vector registers");
        if ((rounds[i] & 255) == 0) usleep(50);
    }
}

// All general registers, the carry flag and the red zone, for long stretches without a call.
static void *registers(void *x) {
    long i = (long)x;
    for (;; rounds[i]++) {
        uint64_t bad = 0;
        __asm__ volatile(
            "mov $0x1111111111111111,%%rbx\n mov $0x2222222222222222,%%r12\n"
            "mov $0x3333333333333333,%%r13\n mov $0x4444444444444444,%%r14\n"
            "mov $0x5555555555555555,%%r15\n mov $0x66,%%rcx\n mov $0x77,%%r11\n mov $0x88,%%r10\n"
            "mov $0x99,%%r8\n mov $0xaa,%%r9\n mov $0xbb,%%rsi\n mov $0xcc,%%rdi\n"
            "movq $0x7e57,-64(%%rsp)\n movq $0x7e58,-128(%%rsp)\n"
            "mov $300000,%%edx\n stc\n"
            "1: jnc 9f\n mov $0xdeadbeef,%%eax\n dec %%edx\n jnc 9f\n jnz 1b\n"
            "mov $0x1111111111111111,%%rax\n cmp %%rax,%%rbx\n jne 9f\n"
            "mov $0x2222222222222222,%%rax\n cmp %%rax,%%r12\n jne 9f\n"
            "mov $0x3333333333333333,%%rax\n cmp %%rax,%%r13\n jne 9f\n"
            "mov $0x4444444444444444,%%rax\n cmp %%rax,%%r14\n jne 9f\n"
            "mov $0x5555555555555555,%%rax\n cmp %%rax,%%r15\n jne 9f\n"
            "cmp $0x66,%%rcx\n jne 9f\n cmp $0x77,%%r11\n jne 9f\n cmp $0x88,%%r10\n jne 9f\n"
            "cmp $0x99,%%r8\n jne 9f\n cmp $0xaa,%%r9\n jne 9f\n cmp $0xbb,%%rsi\n jne 9f\n"
            "cmp $0xcc,%%rdi\n jne 9f\n cmpq $0x7e57,-64(%%rsp)\n jne 9f\n"
            "cmpq $0x7e58,-128(%%rsp)\n jne 9f\n xor %%eax,%%eax\n jmp 8f\n"
            "9: mov $1,%%eax\n 8:\n"
            : "=a"(bad)::"rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
              "r14", "r15", "memory", "cc");
        if (bad) FAIL(i, "general registers, flags or red zone");
    }
}

static volatile int signalled;
static void on_signal(int s) { (void)s; signalled++; }
static pthread_t suspended;

static void *suspends(void *x) {
    long i = (long)x;
    sigset_t blocked, open;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &blocked, &open);
    sigdelset(&open, SIGUSR1);
    for (;; rounds[i]++)
        for (int seen = signalled; signalled == seen;) {
            if (sigsuspend(&open) != -1 || errno != EINTR) FAIL(i, "sigsuspend %d", errno);
            if (signalled == seen) eintrs[i]++;
        }
}

static void *signals(void *x) {
    long i = (long)x;
    for (;; rounds[i]++) {
        pthread_kill(suspended, SIGUSR1);
        struct timespec t = {0, 1500000};
        nanosleep(&t, 0);
    }
}

static void *epolls(void *x) {
    long i = (long)x;
    int e = epoll_create1(0), p[2];
    if (pipe(p)) abort();
    struct epoll_event want = {.events = EPOLLIN}, got;
    epoll_ctl(e, EPOLL_CTL_ADD, p[0], &want);
    for (;; rounds[i]++)
        if (epoll_wait(e, &got, 1, 3) < 0)
            errno == EINTR ? (void)eintrs[i]++ : (void)FAIL(i, "epoll_wait %d", errno);
}

static void *timed_waits(void *x) {
    long i = (long)x;
    static sem_t semaphore;
    for (sem_init(&semaphore, 0, 0);; rounds[i]++) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        t.tv_nsec += 3000000;
        if (t.tv_nsec >= 1000000000) { t.tv_sec++; t.tv_nsec -= 1000000000; }
        if (sem_timedwait(&semaphore, &t) == 0) FAIL(i, "a semaphore nobody posts");
        else if (errno == EINTR) eintrs[i]++;
        else if (errno != ETIMEDOUT) FAIL(i, "sem_timedwait %d", errno);
    }
}

int main(void) {
    static const struct { void *(*run)(void *); const char *name; } all[THREADS] = {
        {locks, "locks"}, {locks, "locks"}, {sleeps, "sleeps"}, {polls, "polls"}, {reads, "reads"},
        {writes, "writes"}, {waits_for_turn, "waits"}, {gives_turns, "gives"}, {vectors, "vectors"},
        {registers, "registers"}, {suspends, "suspends"}, {signals, "signals"}, {epolls, "epolls"},
        {timed_waits, "timed"}};
    if (pipe(numbers)) abort();
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGUSR1, &action, 0);
    pthread_t thread;
    for (long i = 0; i < THREADS; i++) {
        pthread_create(&thread, 0, all[i].run, (void *)i);
        if (all[i].run == suspends) suspended = thread;
    }
    uint64_t last[THREADS] = {0};
    for (int second = 1;; second++) {
        struct timespec t = {1, 0};
        while (nanosleep(&t, &t));
        uint64_t bad = 0, eintr = 0, stalled = 0;
        for (int i = 0; i < THREADS; i++) {
            bad += errors[i];
            eintr += eintrs[i];
            if (rounds[i] == last[i]) { stalled++; dprintf(2, "stalled: %s\n", all[i].name); }
            last[i] = rounds[i];
        }
        printf("second=%d errors=%lu eintr=%lu stalled=%lu\n", second, bad, eintr, stalled);
        fflush(stdout);
    }
}
