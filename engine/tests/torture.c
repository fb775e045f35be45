// Changes its memory in every way there is, for ever: by writes of its own and of the kernel's, by maps that
// come, go, move, grow, shrink and split, by huge pages, by forks, by files under private maps.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { AREAS = 24, PAGE = 4096, LARGEST = 1024, THREADS = 2 };
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

static struct area {
    char *start;
    size_t pages;
} areas[AREAS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int file;

static uint64_t next(uint64_t *state) {
    *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
    return *state;
}

static void map(struct area *area, uint64_t random) {
    area->pages = 1 + random % LARGEST;
    int of = random >> 32 & 7 ? -1 : file, flags = MAP_PRIVATE | (of < 0 ? MAP_ANONYMOUS : 0);
    area->start = mmap(NULL, area->pages * PAGE, PROT_READ | PROT_WRITE, flags, of, 0);
    if (area->start == MAP_FAILED) _exit(1);
}

static char *page_of(struct area *area, uint64_t random) { return area->start + random % area->pages * PAGE; }

static void some_call(struct area *area, uint64_t random) {
    char *page = page_of(area, random >> 16);
    size_t pages = area->pages - (page - area->start) / PAGE, count = 1 + (random >> 40) % 9;
    size_t length = (count < pages ? count : pages) * PAGE;
    switch (random % 16) {
    case 0: madvise(page, length, MADV_DONTNEED); break;
    case 1: madvise(page, length, MADV_FREE); break;
    case 2: madvise(area->start, area->pages * PAGE, MADV_HUGEPAGE); break;
    case 3: madvise(area->start, area->pages * PAGE, MADV_COLLAPSE); break;
    case 4: madvise(area->start, area->pages * PAGE, MADV_MERGEABLE); break;
    case 5: if (getrandom(page, length < 256 ? length : 256, 0) < 0) _exit(2); break;
    case 6: if (pread(file, page, length, random >> 20 & 0xff000) < 0) _exit(3); break;
    case 7: {
        char text[64];
        struct iovec from = {text, sizeof text}, to = {page + 100, sizeof text};
        memset(text, (int)random, sizeof text);
        process_vm_writev(getpid(), &from, 1, &to, 1, 0);
        break;
    }
    case 8: mprotect(page, length, PROT_READ), mprotect(page, length, PROT_READ | PROT_WRITE); break;
    case 9: munmap(area->start, area->pages * PAGE), map(area, random >> 8); break;
    case 10: { // Grows, shrinks, moves.
        size_t now = 1 + (random >> 8) % LARGEST;
        char *to = mremap(area->start, area->pages * PAGE, now * PAGE, MREMAP_MAYMOVE);
        if (to != MAP_FAILED) area->start = to, area->pages = now;
        break;
    }
    case 11: { // Moves for certain, over somebody who goes.
        char *hole = mmap(NULL, area->pages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        char *to = mremap(area->start, area->pages * PAGE, area->pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, hole);
        if (to != MAP_FAILED) {
            area->start = to;
            break;
        }
        // Of several areas, some may have moved.
        munmap(hole, area->pages * PAGE), munmap(area->start, area->pages * PAGE), map(area, random >> 8);
        break;
    }
    case 12: mmap(page, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0); break;
    case 13: // A gap in the middle, filled again.
        munmap(page, length);
        mmap(page, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        break;
    default: memset(page, (int)random, length);
    }
}

static void *torment(void *seed) {
    uint64_t state = (uintptr_t)seed * 0x9e3779b97f4a7c15 + getpid();
    for (;;) {
        uint64_t random = next(&state);
        pthread_mutex_lock(&lock);
        struct area *area = &areas[random % AREAS];
        if (random >> 8 & 7) page_of(area, random >> 16)[random % PAGE] = (char)random;
        else some_call(area, random >> 16);
        pthread_mutex_unlock(&lock);
        if (!(random >> 50 & 1023)) free(malloc(random & 0xfffff));
        if (!(random >> 50 & 255)) usleep(100);
    }
    return NULL;
}

int main(int count, char **args) {
    (void)count;
    file = open(args[1], O_RDWR | O_CREAT | O_TRUNC, 0600);
    for (int page = 0; page < 2 * LARGEST; page++) {
        char text[PAGE];
        memset(text, page, sizeof text);
        if (write(file, text, sizeof text) != sizeof text) return 1;
    }
    uint64_t state = 88172645463325252;
    for (int i = 0; i < AREAS; i++) map(&areas[i], next(&state));
    for (uintptr_t i = 1; i <= THREADS; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, torment, (void *)i);
    }
    puts("READY"), fflush(stdout);
    for (;;) {
        pid_t child = fork();
        if (!child) usleep(next(&state) % 3000), _exit(0);
        waitpid(child, NULL, 0);
        usleep(1000);
    }
}
