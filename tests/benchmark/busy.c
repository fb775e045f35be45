// MIB RATE THREADS: threads that read pages of their share of memory at random, as fast as they can, and write so
// many a second in all. Each USR1 has it say how many were read, and when, in nanoseconds.
#include "subject.h"
#include <pthread.h>
#include <sys/mman.h>

enum { PAGE = 4096, MOST = 64 };
static struct worker {
    uint64_t *words, seed, sum;
    size_t pages;
    double rate;
    volatile uint64_t units;
} __attribute__((aligned(128))) workers[MOST];

static uint64_t next(struct worker *me) {
    me->seed ^= me->seed << 13, me->seed ^= me->seed >> 7;
    return me->seed ^= me->seed << 17;
}

static void write_page(struct worker *me, size_t page) {
    for (int word = 0; word < PAGE / 8; word++) me->words[page * PAGE / 8 + word] = next(me);
}

static void read_page(struct worker *me, size_t page) {
    for (int word = 0; word < PAGE / 8; word++) me->sum += me->words[page * PAGE / 8 + word];
}

static void *work(void *worker) {
    struct worker *me = worker;
    double start = now_ms(CLOCK_MONOTONIC);
    for (uint64_t written = 0;;) {
        for (int unit = 0; unit < 64; unit++) read_page(me, next(me) % me->pages);
        me->units += 64;
        for (uint64_t due = (now_ms(CLOCK_MONOTONIC) - start) / 1e3 * me->rate; written < due; written++)
            write_page(me, next(me) % me->pages);
    }
    return NULL;
}

int main(int count, char **args) {
    MUST(count == 4);
    int threads = atoi(args[3]);
    MUST(threads > 0 && threads <= MOST);
    sigset_t asked;
    sigemptyset(&asked);
    sigaddset(&asked, SIGUSR1);
    sigprocmask(SIG_BLOCK, &asked, NULL);
    size_t bytes = (atol(args[1]) << 20) / threads;
    for (int i = 0; i < threads; i++) {
        struct worker *me = &workers[i];
        *me = (struct worker){.seed = 88172645463325252 + i, .pages = bytes / PAGE, .rate = atof(args[2]) / threads};
        me->words = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        MUST(me->words != MAP_FAILED);
        for (size_t page = 0; page < me->pages; page++) write_page(me, page);
    }
    for (int i = 0; i < threads; i++) {
        pthread_t thread;
        MUST(pthread_create(&thread, NULL, work, &workers[i]) == 0);
    }
    say("READY");
    for (int signal; sigwait(&asked, &signal) == 0;) {
        uint64_t units = 0;
        for (int i = 0; i < threads; i++) units += workers[i].units;
        char line[80];
        snprintf(line, sizeof line, "UNITS %lu %.0f", units, now_ms(CLOCK_MONOTONIC) * 1e6);
        say(line);
    }
    return 1;
}
