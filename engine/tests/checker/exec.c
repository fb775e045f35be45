// Several threads, of which one executes the program again after a few milliseconds, for ever.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char **arguments;
static int generation;

static void *idles(void *x) {
    for (;;) usleep(100);
}

static void *executes(void *x) {
    usleep(generation * 37 % 3000);
    char next[20];
    sprintf(next, "%d", generation + 1);
    char *again[] = {arguments[0], next, 0};
    execv("/proc/self/exe", again);
    return 0;
}

int main(int count, char **given) {
    arguments = given;
    generation = count > 1 ? atoi(given[1]) : 0;
    pthread_t thread;
    for (int i = 0; i < 3; i++) pthread_create(&thread, 0, idles, 0);
    pthread_create(&thread, 0, executes, 0);
    for (;;) pause();
}
