// MIB RATE [FILE]: writes so many pages a second, at random, into so many MiB of its memory or of a file of its own.
#include "subject.h"
#include <sys/mman.h>

enum { PAGE = 4096 };
static uint64_t seed = 88172645463325252;

static uint64_t next(void) {
    seed ^= seed << 13, seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static void write_page(char *memory, int file, size_t page) {
    uint64_t words[PAGE / 8];
    for (int word = 0; word < PAGE / 8; word++) words[word] = next();
    if (memory)
        memcpy(memory + page * PAGE, words, PAGE);
    else
        MUST(pwrite(file, words, PAGE, page * PAGE) == PAGE);
}

int main(int count, char **args) {
    MUST(count >= 3);
    size_t bytes = atol(args[1]) << 20, pages = bytes / PAGE, written = 0;
    double rate = atof(args[2]);
    char *memory = NULL;
    int file = -1;
    if (count > 3)
        MUST((file = open(args[3], O_RDWR | O_CREAT | O_TRUNC, 0600)) >= 0);
    else
        MUST((memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) != MAP_FAILED);
    for (size_t page = 0; page < pages; page++) write_page(memory, file, page);
    if (file >= 0) MUST(fsync(file) == 0);
    say("READY");
    for (double start = now_ms(CLOCK_MONOTONIC); !told; sleep_ms(2))
        for (size_t due = (now_ms(CLOCK_MONOTONIC) - start) / 1e3 * rate; written < due; written++)
            write_page(memory, file, next() % pages);
    return ok();
}
