// cc: gcc -O1 -g -Wall
// A session and a group whose leader is gone, and a process of several threads.
#include "subject.h"
#include <pthread.h>
#include <sys/prctl.h>

static void sleep_for_ever(void) {
    for (;;) pause();
}

static _Atomic int said[3];

__attribute__((noreturn)) static void *thread(void *number) {
    for (;;) {
        said[(long)number]++;
        sleep_ms(1);
    }
}

int main(void) {
    MUST(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    int status, left, leader = fork();
    if (leader == 0) {
        setsid();
        if (fork() == 0) {
            signal(SIGTERM, SIG_DFL);
            sleep_for_ever();
        }
        _exit(0);
    }
    MUST(waitpid(leader, &status, 0) == leader && status == 0);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
    FILE *children = fopen(path, "r");
    MUST(children && fscanf(children, "%d", &left) == 1);
    fclose(children);
    sigset_t term;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &term, NULL);
    for (long i = 0; i < 3; i++) {
        pthread_t one;
        MUST(pthread_create(&one, NULL, thread, (void *)i) == 0);
    }
    pthread_sigmask(SIG_UNBLOCK, &term, NULL);
    until_told();
    MUST(getsid(left) == leader && getpgid(left) == leader);
    for (int i = 0; i < 3; i++)
        for (int before = said[i]; said[i] == before;) sleep_ms(1);
    MUST(kill(left, SIGTERM) == 0 && waitpid(left, &status, 0) == left && status == SIGTERM);
    return ok();
}
