// cc: gcc -O2 -g -Wall
// Memory that the program wants in huge pages: it is in huge pages again, with the same contents.
#include "subject.h"
#include <sys/mman.h>

enum { HUGE = 2 << 20, MANY = 16 };

static char *area(void) {
    char *room = mmap(NULL, (MANY + 2) * (size_t)HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(room != MAP_FAILED);
    char *start = (char *)(((uintptr_t)room + HUGE) / HUGE * HUGE);
    MUST(!mprotect(start, MANY * (size_t)HUGE, PROT_READ | PROT_WRITE));
    return start;
}

// What smaps says of the area that begins at an address, in KiB.
static long kib(const char *start, const char *what) {
    FILE *file = fopen("/proc/self/smaps", "r");
    char line[4096], place[40];
    long found = -1;
    snprintf(place, sizeof place, "%lx-", (unsigned long)start);
    MUST(file);
    for (int here = 0; found < 0 && fgets(line, sizeof line, file);) {
        if (!strncmp(line, place, strlen(place))) here = 1;
        if (here && !strncmp(line, what, strlen(what))) found = atol(line + strlen(what));
    }
    fclose(file);
    return found;
}

int main(void) {
    char *full = area();
    MUST(!madvise(full, MANY * (size_t)HUGE, MADV_HUGEPAGE));
    for (size_t i = 0; i < MANY * (size_t)HUGE / 8; i++) ((uint64_t *)full)[i] = i * 0x9e3779b97f4a7c15;
    long huge = kib(full, "AnonHugePages:");
    if (huge <= 0) fail("the kernel gave no huge page");
    until_told();
    for (size_t i = 0; i < MANY * (size_t)HUGE / 8; i++)
        if (((uint64_t *)full)[i] != i * 0x9e3779b97f4a7c15) fail("word %zu", i);
    long again = kib(full, "AnonHugePages:");
    if (again < huge / 2) fail("of %ld KiB in huge pages %ld are so still", huge, again);
    return ok();
}
