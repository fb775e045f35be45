// So many threads in all, so many of which never sleep: they write their own page over and over.
#include "subject.h"
#include <pthread.h>
#include <sys/mman.h>

static pthread_barrier_t started;

static void *asleep(void *unused) {
    pthread_barrier_wait(&started);
    for (;;) pause();
    return unused;
}

static void *busy(void *page) {
    pthread_barrier_wait(&started);
    for (volatile uint64_t *words = page;;)
        for (int word = 0; word < 512; word++) words[word]++;
    return NULL;
}

int main(int count, char **args) {
    MUST(count == 3);
    int threads = atoi(args[1]), working = atoi(args[2]);
    char *pages = mmap(NULL, 4096 * (working + 1), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(pages != MAP_FAILED);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 << 10);
    // The first thread is one of them.
    pthread_barrier_init(&started, NULL, threads);
    for (int i = 1; i < threads; i++) {
        pthread_t thread;
        MUST(pthread_create(&thread, &small, i <= working ? busy : asleep, pages + 4096 * (i <= working ? i : 0)) == 0);
    }
    pthread_barrier_wait(&started);
    until_told();
    return ok();
}
