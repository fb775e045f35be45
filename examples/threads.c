/* Four threads count together under a lock; the sum tells whether any count was lost. */
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

enum { THREADS = 4, ROUNDS = 400 };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long counts[THREADS], sum;

static void *count(void *arg)
{
    long *mine = arg;
    for (int i = 0; i < ROUNDS; i++) {
        pthread_mutex_lock(&lock);
        (*mine)++;
        sum++;
        pthread_mutex_unlock(&lock);
        usleep(50000);
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, count, &counts[i]);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    printf("%ld of %d\n", sum, THREADS * ROUNDS);
    return sum != THREADS * ROUNDS;
}
