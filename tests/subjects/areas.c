// cc: gcc -O1 -g -Wall
// Kinds: shmem
// Kinds of areas: a huge reservation, a private file mapping with written pages, anonymous shared memory,
// a growing stack, advice, locked pages, memory without access, guard pages, and a page at a low, fixed address.
#include "subject.h"
#include <sys/mman.h>
#include <sys/stat.h>

static char data[100000] = "initialised";

static int blank(const char *page) {
    return page[0] == 0 && !memcmp(page, page + 1, 4095);
}

static int deep(int depth) {
    volatile int frame[1024];
    frame[0] = depth;
    return depth ? deep(depth - 1) + (frame[0] == depth) : 0;
}

int main(int argc, char **argv) {
    char *reserved = mmap(NULL, 64UL << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    MUST(reserved != MAP_FAILED && mprotect(reserved + (32UL << 30), 4096, PROT_READ | PROT_WRITE) == 0);
    strcpy(reserved + (32UL << 30), "deep inside");
    int exe = open("/proc/self/exe", O_RDONLY);
    char *file = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE, exe, 0);
    MUST(file != MAP_FAILED && close(exe) == 0);
    strcpy(file + 5000, "written over the file");
    // Zeros that the program wrote are not the holes through which the file shows.
    MUST(!blank(file + 8192));
    memset(file + 8192, 0, 4096);
    char *shared = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    strcpy(shared + 9000, "shared");
    char *advised = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(madvise(advised, 65536, MADV_DONTFORK) == 0 && madvise(advised + 4096, 4096, MADV_DONTDUMP) == 0);
    char *fixed = mmap((void *)0x10000000, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    MUST(fixed == (char *)0x10000000);
    strcpy(fixed, "fixed");
    char *sealed = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    strcpy(sealed, "no access");
    MUST(mprotect(sealed, 4096, PROT_NONE) == 0);
    // Memory that may only be executed has a protection key, where the processor knows them.
    char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(code, "\xb8\x2a\0\0\0\xc3", 6);
    MUST(mprotect(code, 4096, PROT_EXEC) == 0);
    // Touching a guard is a fault; kernels before 6.13 know none.
    char *guarded = mmap(NULL, 12288, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(guarded, 'g', 12288);
    int guards = madvise(guarded + 4096, 4096, 102 /* MADV_GUARD_INSTALL */) == 0;
    MUST(guards || errno == EINVAL);
    char *locked = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(mlock(locked, 8192) == 0 && mlockall(MCL_FUTURE) == 0);
    char *heap = malloc(200000);
    strcpy(heap + 150000, "heap");
    void *end = sbrk(0);
    strcpy(data + 50000, "data");
    until_told();
    char *later = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(later != MAP_FAILED && msync(later, 4096, MS_INVALIDATE) == -1 && errno == EBUSY);
    MUST(munlockall() == 0 && ((int (*)(void))code)() == 42);
    MUST(blank(file + 8192));
    MUST(!strcmp(reserved + (32UL << 30), "deep inside") && !strcmp(file + 5000, "written over the file"));
    MUST(!memcmp(file, "\177ELF", 4) && !strcmp(shared + 9000, "shared") && !strcmp(fixed, "fixed"));
    MUST(mprotect(sealed, 4096, PROT_READ) == 0 && !strcmp(sealed, "no access"));
    MUST(guarded[4095] == 'g' && guarded[8192] == 'g');
    MUST(!guards || (access(guarded + 4096, F_OK) == -1 && errno == EFAULT));
    MUST(!strcmp(heap + 150000, "heap") && sbrk(0) == end && sbrk(65536) == end && !strcmp(data + 50000, "data"));
    MUST(deep(500) == 500 && !strcmp(data, "initialised") && getenv("PATH") && argv[argc] == NULL);
    int child = fork(), status;
    if (child == 0) {
        strcpy(shared + 100, "child");
        _exit(0);
    }
    MUST(waitpid(child, &status, 0) == child && status == 0 && !strcmp(shared + 100, "child"));
    MUST(clock_gettime(CLOCK_MONOTONIC, &(struct timespec){}) == 0);
    return ok();
}
