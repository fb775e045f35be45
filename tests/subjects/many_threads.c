// cc: gcc -O1 -g -Wall
// As many threads as the argument says, each asleep on a futex with its own name and value.
#include "subject.h"
#include <pthread.h>
#include <sys/prctl.h>

static pthread_barrier_t started;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t check = PTHREAD_COND_INITIALIZER;
static int checking, right;
static __thread long own;

static void *sleeper(void *number) {
    own = (long)number;
    char name[16], seen[16] = "";
    snprintf(name, sizeof name, "thread-%ld", own);
    prctl(PR_SET_NAME, name);
    pthread_barrier_wait(&started);
    pthread_mutex_lock(&lock);
    while (!checking) pthread_cond_wait(&check, &lock);
    prctl(PR_GET_NAME, seen);
    if (own == (long)number && !strcmp(name, seen)) right++;
    pthread_mutex_unlock(&lock);
    return NULL;
}

int main(int argc, char **argv) {
    int count = argc > 1 ? atoi(argv[1]) : 1000;
    pthread_t *threads = calloc(count, sizeof *threads);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 << 10);
    pthread_barrier_init(&started, NULL, count + 1);
    leave_term();
    for (long i = 0; i < count; i++) MUST(pthread_create(&threads[i], &small, sleeper, (void *)i) == 0);
    pthread_barrier_wait(&started);
    until_told();
    pthread_mutex_lock(&lock);
    checking = 1;
    pthread_cond_broadcast(&check);
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
    if (right != count) fail("%d of %d threads are right", right, count);
    return ok();
}
