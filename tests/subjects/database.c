// cc: gcc -O2 -g -Wall
// A database of a kind: `database FILE MIB PAGES [mapped]` rewrites so many pages of its file each millisecond, at
// random, and remembers in its memory what each should hold; now and then it makes a hole, or the file shorter or
// longer. Told to end, it finds that file and memory agree: after a restore only if both are of the same instant.
#include "subject.h"
#include <sys/mman.h>
#include <sys/stat.h>

enum { PAGE = 4096, WORDS = PAGE / 8 };
static uint32_t *versions; // Zero: it is a hole.
static size_t pages, end;
static uint64_t *map;
static int file;

static void fill(uint64_t *words, size_t page, uint32_t version) {
    for (int word = 0; word < WORDS; word++)
        words[word] = version ? ((uint64_t)page * WORDS + word + version) * 0x9e3779b97f4a7c15 : 0;
}

static void write_page(size_t page) {
    uint64_t words[WORDS];
    fill(words, page, versions[page]);
    if (map)
        memcpy(map + page * WORDS, words, PAGE);
    else
        MUST(pwrite(file, words, PAGE, page * PAGE) == PAGE);
}

static void punch(size_t page) {
    versions[page] = 0;
    MUST(!fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, page * PAGE, PAGE));
}

static void resize(size_t wanted) {
    end = wanted;
    MUST(!ftruncate(file, end * PAGE));
    memset(versions + end, 0, (pages - end) * sizeof *versions);
}

int main(int count, char **args) {
    MUST(count > 3);
    size_t bytes = strtoul(args[2], NULL, 10) << 20;
    end = pages = bytes / PAGE;
    int each = atoi(args[3]);
    versions = calloc(pages, sizeof *versions);
    file = open(args[1], O_RDWR | O_CREAT | O_TRUNC, 0600);
    MUST(versions && file >= 0 && !ftruncate(file, bytes));
    for (size_t page = 0; page < pages; page++) {
        versions[page] = 1;
        write_page(page);
    }
    MUST(!fsync(file));
    if (count > 4) {
        map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        MUST(map != MAP_FAILED);
    }
    say("READY");
    while (!told) {
        for (int i = 0; i < each; i++) {
            size_t page = random() % end;
            versions[page]++;
            write_page(page);
        }
        long chance = random() % 64;
        if (chance < 8) punch(random() % end);
        if (chance == 63) resize(pages - random() % 64);
        sleep_ms(1);
    }
    struct stat now;
    MUST(!fstat(file, &now) && (size_t)now.st_size == end * PAGE);
    for (size_t page = 0; page < end; page++) {
        uint64_t found[WORDS], wanted[WORDS];
        fill(wanted, page, versions[page]);
        MUST(pread(file, found, PAGE, page * PAGE) == PAGE);
        if (memcmp(found, wanted, PAGE)) fail("page %zu of the file is not what memory says", page);
    }
    return ok();
}
