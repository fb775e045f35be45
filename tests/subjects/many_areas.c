// cc: gcc -O1 -g -Wall
// As many areas as the argument says, kept apart by their protection, each with its own number in it.
#include "subject.h"
#include <sys/mman.h>

int main(int argc, char **argv) {
    long count = argc > 1 ? atol(argv[1]) : 20000, page = 4096;
    char *start = mmap(NULL, count * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(start != MAP_FAILED);
    for (long i = 0; i < count; i++) *(long *)(start + i * page) = i * 7919;
    for (long i = 0; i < count; i += 2) MUST(mprotect(start + i * page, page, PROT_READ) == 0);
    until_told();
    for (long i = 0; i < count; i++)
        if (*(long *)(start + i * page) != i * 7919) fail("area %ld holds %ld", i, *(long *)(start + i * page));
    for (long i = 1; i < count; i += 2) *(long *)(start + i * page) = 1;
    MUST(mprotect(start, page, PROT_READ | PROT_WRITE) == 0);
    return ok();
}
