// cc: gcc -O1 -g -Wall
// Kinds: pty
// A pseudo-terminal with both ends: its modes, window size, bytes in both directions, and a session whose
// controlling terminal it is, with a foreground group. Its slave is open twice, once with two descriptors of which one is
// closed on exec.
#include "subject.h"
#include <pty.h>
#include <sys/ioctl.h>
#include <termios.h>

int main(void) {
    int master, child, status;
    struct winsize size = {33, 111, 0, 0}, seen;
    struct termios modes, after;
    char text[100];
    int ready[2];
    MUST(pipe(ready) == 0);
    MUST((child = forkpty(&master, NULL, NULL, &size)) >= 0);
    if (child == 0) {
        struct termios raw;
        tcgetattr(0, &raw);
        cfmakeraw(&raw);
        raw.c_cc[VINTR] = 5;
        MUST(tcsetattr(0, TCSANOW, &raw) == 0 && write(1, "up", 2) == 2 && write(ready[1], "r", 1) == 1);
        while (read(0, text, 1) == 1 && text[0] != 'q') continue;
        MUST(tcgetpgrp(0) == getpid() && tcgetsid(0) == getpid() && getsid(0) == getpid());
        _exit(5);
    }
    MUST(read(ready[0], text, 1) == 1 && tcgetattr(master, &modes) == 0);
    int closed = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY), kept;
    MUST(closed >= 0 && (kept = dup(closed)) >= 0 && fcntl(closed, F_SETFD, FD_CLOEXEC) == 0);
    until_told();
    MUST(fcntl(closed, F_GETFD) == FD_CLOEXEC && fcntl(kept, F_GETFD) == 0 && close(closed) == 0 && close(kept) == 0);
    MUST(ioctl(master, TIOCGWINSZ, &seen) == 0 && seen.ws_row == 33 && seen.ws_col == 111);
    MUST(tcgetattr(master, &after) == 0 && after.c_cc[VINTR] == 5 && after.c_lflag == modes.c_lflag && after.c_iflag == modes.c_iflag);
    MUST(read(master, text, 100) == 2 && !memcmp(text, "up", 2));
    MUST(write(master, "xyq", 3) == 3 && waitpid(child, &status, 0) == child);
    if (status != 5 << 8) fail("the child on the terminal ended with %x", status);
    return ok();
}
