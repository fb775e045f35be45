// cc: gcc -O1 -g -Wall
// Executes itself again when told by USR1, with other contents in memory of the same size, often at the same
// place: what was known of the memory before is not true of it.
#include "subject.h"
#include <sys/mman.h>

enum { BYTES = 32 << 20 };

static void again(int signal) {
    (void)signal;
    static char *generation;
    generation = getenv("GENERATION");
    char next[20];
    snprintf(next, sizeof next, "%d", atoi(generation ? generation : "0") + 1);
    setenv("GENERATION", next, 1);
    execl("/proc/self/exe", "exec_again", NULL);
    _exit(1);
}

int main(void) {
    sigset_t unblock;
    sigfillset(&unblock);
    sigprocmask(SIG_UNBLOCK, &unblock, NULL);
    int generation = atoi(getenv("GENERATION") ?: "0");
    unsigned char *start = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(start != MAP_FAILED);
    memset(start, 'a' + generation, BYTES);
    printf("generation %d\n", generation);
    fflush(stdout);
    signal(SIGUSR1, again);
    until_told();
    for (int at = 0; at < BYTES; at++)
        if (start[at] != 'a' + generation) fail("byte %d of generation %d is %c", at, generation, start[at]);
    return ok();
}
