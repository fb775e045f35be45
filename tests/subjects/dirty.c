// cc: gcc -O2 -g -Wall
// As many MiB of memory as the first argument says, all written. Each USR1 has it write so many hundredths of
// its pages, at random, and say so. Told to end, it finds in each page what it wrote there last.
#include "subject.h"
#include <sys/mman.h>

enum { PAGE = 4096 };
static uint64_t *words, rounds;
static size_t pages;
static unsigned *round_of;
static volatile sig_atomic_t asked;

static void ask(int signal) {
    (void)signal;
    asked++;
}

static void write_page(size_t page) {
    round_of[page] = rounds;
    for (int word = 0; word < PAGE / 8; word++)
        words[page * PAGE / 8 + word] = (page * 512 + word + rounds) * 0x9e3779b97f4a7c15;
}

int main(int count, char **args) {
    size_t bytes = (count > 1 ? atol(args[1]) : 16) << 20;
    double percent = count > 2 ? atof(args[2]) : 1;
    int done = 0;
    pages = bytes / PAGE;
    words = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    round_of = calloc(pages, sizeof *round_of);
    MUST(words != MAP_FAILED && round_of);
    for (size_t page = 0; page < pages; page++) write_page(page);
    signal(SIGUSR1, ask);
    say("READY");
    while (!told) {
        sleep_ms(1);
        for (; done < asked; done++) {
            rounds++;
            for (size_t i = 0; i < (size_t)(pages * percent / 100); i++) write_page(random() % pages);
            say("WRITTEN");
        }
    }
    for (size_t page = 0; page < pages; page++) {
        rounds = round_of[page];
        for (int word = 0; word < PAGE / 8; word++)
            if (words[page * PAGE / 8 + word] != (page * 512 + word + rounds) * 0x9e3779b97f4a7c15)
                fail("page %zu, word %d", page, word);
    }
    return ok();
}
