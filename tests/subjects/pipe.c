// cc: gcc -O1 -g -Wall
// Pipes: bytes in flight, a size of their own, packets (one of a writer that has left packet mode), an end
// without holder, an end shared after fork.
#include "subject.h"

int main(void) {
    int plain[2], large[2], packets[2], widowed[2], shared[2];
    char buffer[100];
    MUST(pipe2(plain, O_NONBLOCK) == 0 && write(plain[1], "in flight", 9) == 9);
    MUST(pipe(large) == 0 && fcntl(large[1], F_SETPIPE_SZ, 1 << 20) == 1 << 20);
    char *bulk = malloc(300000);
    memset(bulk, 'b', 300000);
    MUST(write(large[1], bulk, 300000) == 300000);
    MUST(pipe2(packets, O_DIRECT) == 0 && write(packets[1], "one", 3) == 3 && write(packets[1], "second", 6) == 6);
    MUST(pipe(widowed) == 0 && write(widowed[1], "last", 4) == 4 && close(widowed[1]) == 0);
    MUST(pipe(shared) == 0);
    int left[2];
    MUST(pipe2(left, O_DIRECT | O_NONBLOCK) == 0 && write(left[1], "a packet", 8) == 8 && fcntl(left[1], F_SETFL, 0) == 0);
    int child = fork();
    MUST(child >= 0);
    if (child == 0) {
        close(shared[1]);
        while (read(shared[0], buffer, 1) == 1)
            if (write(plain[1], "c", 1) != 1) _exit(2);
        _exit(7);
    }
    close(shared[0]);
    until_told();
    MUST(write(shared[1], "x", 1) == 1 && close(shared[1]) == 0);
    int status;
    MUST(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
    MUST(read(plain[0], buffer, 100) == 10 && !memcmp(buffer, "in flightc", 10));
    MUST(read(plain[0], buffer, 1) == -1 && errno == EAGAIN);
    MUST(fcntl(large[0], F_GETPIPE_SZ) == 1 << 20);
    for (int left = 300000; left;) {
        ssize_t length = read(large[0], bulk, left);
        MUST(length > 0);
        for (int i = 0; i < length; i++) MUST(bulk[i] == 'b');
        left -= length;
    }
    MUST(read(packets[0], buffer, 100) == 3 && read(packets[0], buffer, 100) == 6);
    MUST(read(widowed[0], buffer, 100) == 4 && read(widowed[0], buffer, 100) == 0);
    MUST(read(left[0], buffer, 3) == 3 && read(left[0], buffer, 3) == -1 && errno == EAGAIN);
    return ok();
}
