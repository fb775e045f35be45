// cc: gcc -O1 -g -Wall
// Named pipes: one with bytes in it, opened for reading, writing and both; one whose name is gone.
#include "subject.h"
#include <sys/stat.h>

int main(void) {
    char folder[] = "fifo-XXXXXX", text[20];
    MUST(mkdtemp(folder) && chdir(folder) == 0 && mkfifo("fifo", 0600) == 0 && mkfifo("gone", 0600) == 0);
    int both = open("fifo", O_RDWR), reader = open("fifo", O_RDONLY | O_NONBLOCK), writer = open("fifo", O_WRONLY);
    MUST(both >= 0 && reader >= 0 && writer >= 0 && write(writer, "queued", 6) == 6);
    until_told();
    MUST(read(reader, text, 20) == 6 && !memcmp(text, "queued", 6) && read(reader, text, 1) == -1 && errno == EAGAIN);
    MUST(write(both, "x", 1) == 1 && read(reader, text, 1) == 1);
    int again = open("fifo", O_WRONLY | O_NONBLOCK);
    MUST(again >= 0 && write(again, "named", 5) == 5 && read(reader, text, 20) == 5);
    return ok();
}
