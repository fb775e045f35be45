// cc: gcc -O2 -g -Wall
// As many MiB of memory as the argument says, every page touched, each with contents that follow from
// its address; half of the pages do not compress.
#include "subject.h"
#include <sys/mman.h>

static uint64_t mix(uint64_t x) {
    x ^= x >> 33, x *= 0xff51afd7ed558ccd, x ^= x >> 33;
    return x * 0xc4ceb9fe1a85ec53;
}

int main(int argc, char **argv) {
    size_t size = (argc > 1 ? atol(argv[1]) : 16) << 20;
    uint64_t *words = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(words != MAP_FAILED);
    for (size_t page = 0; page < size / 4096; page++)
        for (int i = 0; i < 512; i++) words[page * 512 + i] = mix(page % 2 ? page * 512 + i : page);
    until_told();
    for (size_t page = 0; page < size / 4096; page++)
        for (int i = 0; i < 512; i++)
            if (words[page * 512 + i] != mix(page % 2 ? page * 512 + i : page)) fail("page %zu, word %d", page, i);
    return ok();
}
