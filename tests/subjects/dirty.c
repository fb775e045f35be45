// cc: gcc -O2 -g -Wall
// As many MiB of memory as the first argument says, all written. Each USR1 has it write so many hundredths of
// its pages, at random, and say so. Told to end, it finds in each page what it wrote there last: noise, or
// with `text` as the third argument words, which compress as text does.
#include "subject.h"
#include <sys/mman.h>

enum { PAGE = 4096 };
static uint64_t *words, rounds;
static size_t pages;
static unsigned *round_of;
static volatile sig_atomic_t asked;

static char vocabulary[4096][8];
static int text;

// Frequent words stand at the beginning of the vocabulary.
static uint64_t content(size_t page, int word) {
    uint64_t noise = (page * 512 + word + rounds) * 0x9e3779b97f4a7c15, letters;
    if (!text) return noise;
    unsigned one = noise >> 52, other = noise >> 40 & 4095;
    memcpy(&letters, vocabulary[one * other >> 12], sizeof letters);
    return letters;
}

static void make_vocabulary(void) {
    for (int word = 0; word < 4096; word++)
        for (int at = 0; at < 8; at++) vocabulary[word][at] = at < 7 ? 'a' + random() % 26 : ' ';
}

static void ask(int signal) {
    (void)signal;
    asked++;
}

static void write_page(size_t page) {
    round_of[page] = rounds;
    for (int word = 0; word < PAGE / 8; word++)
        words[page * PAGE / 8 + word] = content(page, word);
}

int main(int count, char **args) {
    size_t bytes = (count > 1 ? atol(args[1]) : 16) << 20;
    double percent = count > 2 ? atof(args[2]) : 1;
    int done = 0;
    text = count > 3 && !strcmp(args[3], "text");
    make_vocabulary();
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
            if (words[page * PAGE / 8 + word] != content(page, word))
                fail("page %zu, word %d", page, word);
    }
    return ok();
}
