// cc: gcc -O1 -g -Wall
// As many threads as the argument says, each asleep on a futex with its own name and value; some have each
// changed one thing of what a thread has for itself.
#include "subject.h"
#include <pthread.h>
#include <sched.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>

static pthread_barrier_t started;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t check = PTHREAD_COND_INITIALIZER;
static int checking, right, usual_nice;
static __thread long own;

enum { STACK, DEATH, SLACK, COUNTER, NICE, PROCESSOR, PERSONALITY, PRIVILEGES, PECULIARITIES };

// What the thread of this number has for itself: one in ten has something.
static int peculiarity(long number) {
    return number % 10 == 3 ? number / 10 % PECULIARITIES : PECULIARITIES;
}

static void become(long number, char *stack) {
    cpu_set_t first;
    CPU_ZERO(&first);
    CPU_SET(0, &first);
    switch (peculiarity(number)) {
    case STACK: MUST(sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = 8192}, NULL) == 0); break;
    case DEATH: MUST(prctl(PR_SET_PDEATHSIG, SIGURG) == 0); break;
    case SLACK: MUST(prctl(PR_SET_TIMERSLACK, 70000 + number) == 0); break;
    case COUNTER: MUST(prctl(PR_SET_TSC, PR_TSC_SIGSEGV) == 0); break;
    case NICE: MUST(setpriority(PRIO_PROCESS, 0, 7) == 0); break;
    case PROCESSOR: MUST(sched_setaffinity(0, sizeof first, &first) == 0); break;
    case PERSONALITY: MUST(personality(ADDR_NO_RANDOMIZE) >= 0); break;
    case PRIVILEGES: MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0); break;
    }
}

// Whether the thread has all that, and what it has not changed as the others have it.
static int is(long number, char *stack) {
    int changed = peculiarity(number), signal = 0, counter = 0;
    stack_t found;
    cpu_set_t processors;
    MUST(sigaltstack(NULL, &found) == 0 && prctl(PR_GET_PDEATHSIG, &signal) == 0 && prctl(PR_GET_TSC, &counter) == 0);
    MUST(sched_getaffinity(0, sizeof processors, &processors) == 0);
    int slack = prctl(PR_GET_TIMERSLACK), persona = personality(0xffffffff);
    return (changed == STACK ? found.ss_sp == stack && found.ss_size == 8192 : found.ss_flags == SS_DISABLE) &&
           signal == (changed == DEATH ? SIGURG : 0) && (slack == 70000 + number) == (changed == SLACK) &&
           counter == (changed == COUNTER ? PR_TSC_SIGSEGV : PR_TSC_ENABLE) &&
           getpriority(PRIO_PROCESS, 0) == (changed == NICE ? 7 : usual_nice) &&
           (changed != PROCESSOR || (CPU_COUNT(&processors) == 1 && CPU_ISSET(0, &processors))) &&
           !(persona & ADDR_NO_RANDOMIZE) == (changed != PERSONALITY) &&
           prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == (changed == PRIVILEGES);
}

static void *sleeper(void *number) {
    own = (long)number;
    char name[16], seen[16] = "", stack[8192];
    snprintf(name, sizeof name, "thread-%ld", own);
    prctl(PR_SET_NAME, name);
    become(own, stack);
    pthread_barrier_wait(&started);
    pthread_mutex_lock(&lock);
    while (!checking) pthread_cond_wait(&check, &lock);
    prctl(PR_GET_NAME, seen);
    if (own == (long)number && !strcmp(name, seen) && is(own, stack)) right++;
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
    usual_nice = getpriority(PRIO_PROCESS, 0);
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
