// cc: gcc -O1 -g -Wall
// A tree of as many processes as the argument says: each has up to ten children, a value of its own in
// memory that was shared before fork, and a pipe to its parent. The check goes down the tree and comes back.
#include "subject.h"

static int count;
static int shared_before_fork = 12345;

// Processes are numbered as in a heap: node n has the children 10n+1 .. 10n+10.
static void node(int number, int report) {
    int ends[2], children = 0, pids[10];
    MUST(pipe(ends) == 0);
    for (int child = 10 * number + 1; child <= 10 * number + 10 && child < count; child++) {
        int pid = fork();
        MUST(pid >= 0);
        if (pid == 0) {
            close(ends[0]);
            node(child, ends[1]);
        }
        pids[children++] = pid;
    }
    close(ends[1]);
    int own = number * 31, parent = getppid(), ready = 0, byte;
    // All below are ready when each child has said so.
    for (byte = 0; byte < children; byte++) MUST(read(ends[0], &ready, 1) == 1);
    if (report >= 0) MUST(write(report, "r", 1) == 1);

    if (number == 0) {
        until_told();
    } else {
        sigset_t term, old;
        sigemptyset(&term);
        sigaddset(&term, SIGTERM);
        sigprocmask(SIG_BLOCK, &term, &old);
        while (!told) sigsuspend(&old);
    }
    for (int i = 0; i < children; i++) MUST(kill(pids[i], SIGTERM) == 0);
    for (int i = 0; i < children; i++) {
        int status;
        MUST(waitpid(pids[i], &status, 0) == pids[i]);
        if (status) fail("the child %d of node %d ended with %x", pids[i], number, status);
    }
    MUST(own == number * 31 && shared_before_fork == 12345 && getppid() == parent);
    if (number) _exit(0);
}

int main(int argc, char **argv) {
    count = argc > 1 ? atoi(argv[1]) : 500;
    // No child may meet TERM before it waits for it.
    sigset_t term, old;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, &old);
    sigprocmask(SIG_SETMASK, &old, NULL);
    node(0, -1);
    return ok();
}
