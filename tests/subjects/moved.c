// cc: gcc -O1 -g -Wall
// When told by USR1, moves what it has by whole page tables, each to where the one before was. None of it is
// written by that, and some kernels leave no mark: but all of it is somewhere else.
#define _GNU_SOURCE
#include "subject.h"
#include <sys/mman.h>

enum { BLOCK = 2 << 20, BLOCKS = 8, WORDS = BLOCK / 8 };

static char *blocks;
static int moves;

static void move(char *from, char *to) {
    MUST(mremap(from, BLOCK, BLOCK, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
}

static void move_all(int signal) {
    (void)signal;
    char *aside = blocks + BLOCKS * BLOCK;
    move(blocks, aside);
    for (int i = 1; i <= BLOCKS; i++) move(blocks + i * BLOCK, blocks + (i - 1) * BLOCK);
    moves++;
    say("MOVED");
}

int main(void) {
    char *room = mmap(NULL, (BLOCKS + 2) * BLOCK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    MUST(room != MAP_FAILED);
    blocks = (char *)(((uintptr_t)room + BLOCK - 1) / BLOCK * BLOCK);
    MUST(mprotect(blocks, BLOCKS * BLOCK, PROT_READ | PROT_WRITE) == 0);
    MUST(madvise(blocks, BLOCKS * BLOCK, MADV_NOHUGEPAGE) == 0);
    for (int i = 0; i < BLOCKS; i++)
        for (int word = 0; word < WORDS; word++) ((uint64_t *)(blocks + i * BLOCK))[word] = i * WORDS + word;
    signal(SIGUSR1, move_all);
    until_told();
    for (int i = 0; i < BLOCKS; i++) {
        uint64_t first = (i + moves) % BLOCKS * WORDS, *words = (uint64_t *)(blocks + i * BLOCK);
        for (int word = 0; word < WORDS; word++)
            if (words[word] != first + word) fail("block %d after %d moves: word %d is %lu", i, moves, word, words[word]);
    }
    return ok();
}
