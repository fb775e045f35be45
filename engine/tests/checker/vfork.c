// A parent whose vfork(2) child takes its time: the parent can be neither stopped nor woken meanwhile.
#define _GNU_SOURCE
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    pid_t child = vfork();
    if (!child) {
        sleep(3);
        _exit(0);
    }
    waitpid(child, 0, 0);
    for (;;) pause();
}
