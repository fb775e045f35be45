// cc: gcc -O1 -g -Wall -Wno-return-type
// Fourteen threads that check their own registers, vector state, locks, sleeps and pipes without pause:
// no call may fail, end early or be interrupted, no register may change, and none may stand still.
// Argument `stoppable`: epoll_wait may be interrupted without a handler, as signal(7) says of stops.
#include "subject.h"
#include <immintrin.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/epoll.h>

enum { THREADS = 14 };
static _Atomic uint64_t progress[THREADS];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static uint64_t left, right;
static int turn;
static int channel[2];
static pthread_t suspended;
static _Atomic int caught;
static __thread uint64_t own;
static int stoppable;

static void *mutex(long me) {
    own = me * 77;
    for (;;) {
        pthread_mutex_lock(&lock);
        if (left != right) fail("mutex: %lu and %lu", left, right);
        left++;
        for (volatile int i = 0; i < 20; i++) continue;
        right++;
        pthread_mutex_unlock(&lock);
        if (own != (uint64_t)me * 77) fail("mutex: thread-local storage");
        if ((++progress[me] & 1023) == 0) usleep(100);
    }
}

static void *nap(long me) {
    for (;; progress[me]++) {
        struct timespec time = {0, 2000000};
        double start = now_ms(CLOCK_MONOTONIC);
        if (nanosleep(&time, NULL)) fail("nanosleep: %s", strerror(errno));
        if (now_ms(CLOCK_MONOTONIC) - start < 2) fail("nanosleep: too short");
    }
}

static void *polling(long me) {
    int ends[2];
    MUST(pipe(ends) == 0);
    for (;; progress[me]++) {
        struct pollfd entry = {ends[0], POLLIN, 0};
        double start = now_ms(CLOCK_MONOTONIC);
        int found = poll(&entry, 1, 5);
        if (found) fail("poll: %d (%s)", found, strerror(errno));
        if (now_ms(CLOCK_MONOTONIC) - start < 4.9) fail("poll: too short");
    }
}

static void *reader(long me) {
    for (uint32_t expected = 0, value;; expected++, progress[me]++) {
        ssize_t length = read(channel[0], &value, sizeof value);
        if (length != sizeof value) fail("read: %zd (%s)", length, strerror(errno));
        if (value != expected) fail("read: %u, not %u", value, expected);
    }
}

static void *writer(long me) {
    for (uint32_t value = 0;; progress[me]++) {
        if (write(channel[1], &value, sizeof value) != sizeof value) fail("write: %s", strerror(errno));
        if ((++value & 15) == 0) usleep(700);
    }
}

static void *waiter(long me) {
    for (;; progress[me]++) {
        pthread_mutex_lock(&lock);
        while (turn != 1) pthread_cond_wait(&changed, &lock);
        turn = 0;
        pthread_mutex_unlock(&lock);
    }
}

static void *waker(long me) {
    for (;; progress[me]++) {
        pthread_mutex_lock(&lock);
        turn = 1;
        pthread_cond_signal(&changed);
        pthread_mutex_unlock(&lock);
        usleep(900);
    }
}

static void avx(long me) {
    double scalar = 0.25;
    __m128d vector = _mm_set_pd(1.5, 4.5), held = vector;
    for (int i = 0; i < 1000; i++) {
        __asm__ volatile("" : "+x"(held), "+x"(scalar));
        scalar = scalar * 2 * 0.5;
        held = _mm_sub_pd(_mm_add_pd(held, vector), vector);
    }
    double seen[2];
    _mm_storeu_pd(seen, held);
    if (scalar != 0.25 || seen[0] != 4.5 || seen[1] != 1.5) fail("xmm: %f %f %f", scalar, seen[0], seen[1]);
}

// All 32 vector registers and a mask register hold their own values over a long stretch without calls.
__attribute__((target("avx512f"))) static void avx512(void) {
    uint64_t high[8], low[8], mask = 0;
    __asm__ volatile("mov $0x5a5a, %%eax\n kmovw %%eax, %%k3\n"
                     "mov $0x1122334455667788, %%rax\n vpbroadcastq %%rax, %%zmm31\n"
                     "mov $0x8877665544332211, %%rax\n vpbroadcastq %%rax, %%zmm7\n"
                     "mov $200000, %%ecx\n 1: dec %%ecx\n jnz 1b\n"
                     "vmovdqu64 %%zmm31, %0\n vmovdqu64 %%zmm7, %1\n kmovw %%k3, %%eax\n mov %%rax, %2\n"
                     : "=m"(high), "=m"(low), "=m"(mask)
                     :
                     : "rax", "rcx", "cc", "memory", "xmm7", "xmm31", "k3");
    for (int i = 0; i < 8; i++) {
        if (high[i] != 0x1122334455667788) fail("zmm31[%d]: %lx", i, high[i]);
        if (low[i] != 0x8877665544332211) fail("zmm7[%d]: %lx", i, low[i]);
    }
    if ((mask & 0xffff) != 0x5a5a) fail("k3: %lx", mask);
}

static void *vectors(long me) {
    int wide = __builtin_cpu_supports("avx512f");
    for (;;) {
        avx(me);
        if (wide) avx512();
        if ((++progress[me] & 255) == 0) usleep(50);
    }
}

// Every general register but rsp and rbp, the carry flag and the red zone, compared over and over.
static void *registers(long me) {
    for (;; progress[me]++) {
        uint64_t wrong = 0;
        __asm__ volatile(
            "mov $0x1111111111111111,%%rbx\n mov $0x2222222222222222,%%r12\n mov $0x3333333333333333,%%r13\n"
            "mov $0x4444444444444444,%%r14\n mov $0x5555555555555555,%%r15\n mov $0x66,%%rcx\n mov $0x77,%%r11\n"
            "mov $0x88,%%r10\n mov $0x99,%%r8\n mov $0xaa,%%r9\n mov $0xbb,%%rsi\n mov $0xcc,%%rdi\n"
            "movq $0x7e57,-64(%%rsp)\n movq $0x7e58,-128(%%rsp)\n"
            "mov $300000,%%edx\n stc\n"
            "1: jnc 9f\n mov $0xdeadbeef,%%eax\n dec %%edx\n jnc 9f\n jnz 1b\n"
            "mov $0x1111111111111111,%%rax\n cmp %%rax,%%rbx\n jne 9f\n"
            "mov $0x2222222222222222,%%rax\n cmp %%rax,%%r12\n jne 9f\n"
            "mov $0x3333333333333333,%%rax\n cmp %%rax,%%r13\n jne 9f\n"
            "mov $0x4444444444444444,%%rax\n cmp %%rax,%%r14\n jne 9f\n"
            "mov $0x5555555555555555,%%rax\n cmp %%rax,%%r15\n jne 9f\n"
            "cmp $0x66,%%rcx\n jne 9f\n cmp $0x77,%%r11\n jne 9f\n cmp $0x88,%%r10\n jne 9f\n"
            "cmp $0x99,%%r8\n jne 9f\n cmp $0xaa,%%r9\n jne 9f\n cmp $0xbb,%%rsi\n jne 9f\n cmp $0xcc,%%rdi\n jne 9f\n"
            "cmpq $0x7e57,-64(%%rsp)\n jne 9f\n cmpq $0x7e58,-128(%%rsp)\n jne 9f\n"
            "xor %%eax,%%eax\n jmp 8f\n 9: mov $1,%%eax\n 8:\n"
            : "=a"(wrong)
            :
            : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
        if (wrong) fail("a register changed");
    }
}

static void on_usr1(int signal) {
    (void)signal;
    caught++;
}

static void *suspender(long me) {
    sigset_t usr1, open;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &usr1, &open);
    sigdelset(&open, SIGUSR1);
    sigaddset(&open, SIGTERM);
    for (int before = caught;; before = caught, progress[me]++) {
        if (sigsuspend(&open) != -1 || errno != EINTR) fail("sigsuspend: %s", strerror(errno));
        if (caught == before) fail("sigsuspend: returned without a signal");
    }
}

static void *killer(long me) {
    for (;; progress[me]++) {
        pthread_kill(suspended, SIGUSR1);
        usleep(1500);
    }
}

static void *epoller(long me) {
    int poller = epoll_create1(0), ends[2];
    MUST(pipe(ends) == 0);
    struct epoll_event event = {.events = EPOLLIN};
    MUST(epoll_ctl(poller, EPOLL_CTL_ADD, ends[0], &event) == 0);
    for (;; progress[me]++) {
        int found = epoll_wait(poller, &event, 1, 3);
        if (found == -1 && errno == EINTR && stoppable) continue;
        if (found) fail("epoll_wait: %d (%s)", found, strerror(errno));
    }
}

static void *semaphore(long me) {
    sem_t none;
    sem_init(&none, 0, 0);
    for (;; progress[me]++) {
        struct timespec time;
        clock_gettime(CLOCK_REALTIME, &time);
        time.tv_nsec += 3000000;
        if (time.tv_nsec >= 1000000000) time.tv_sec++, time.tv_nsec -= 1000000000;
        if (sem_timedwait(&none, &time) != -1 || errno != ETIMEDOUT) fail("sem_timedwait: %s", strerror(errno));
    }
}

static const struct {
    const char *name;
    void *(*run)(long);
} roles[THREADS] = {
    {"mutex", mutex},   {"mutex", mutex},     {"nap", nap},           {"poll", polling},
    {"reader", reader}, {"writer", writer},   {"waiter", waiter},     {"waker", waker},
    {"vectors", vectors}, {"registers", registers}, {"suspender", suspender}, {"killer", killer},
    {"epoll", epoller}, {"semaphore", semaphore},
};

static void *begin(void *index) {
    leave_term();
    return roles[(long)index].run((long)index);
}

int main(int count, char **args) {
    stoppable = count > 1 && strcmp(args[1], "stoppable") == 0;
    MUST(pipe(channel) == 0);
    struct sigaction action = {.sa_handler = on_usr1};
    sigaction(SIGUSR1, &action, NULL);
    for (long i = 0; i < THREADS; i++) {
        pthread_t thread;
        MUST(pthread_create(&thread, NULL, begin, (void *)i) == 0);
        if (roles[i].run == suspender) suspended = thread;
    }
    until_told();
    uint64_t before[THREADS];
    for (int i = 0; i < THREADS; i++) before[i] = progress[i];
    for (int i = 0; i < THREADS; i++) {
        for (int patience = 0; progress[i] == before[i]; patience++) {
            // The others keep a thread from a processor for seconds at times, snapshots or not.
            if (patience > 3000) fail("%s stands still", roles[i].name);
            sleep_ms(10);
        }
    }
    return ok();
}
