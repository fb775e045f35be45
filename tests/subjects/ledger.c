// cc: gcc -O2 -g -Wall
// Two processes whose threads move amounts between cells far apart: in memory of their own, in areas that
// no fork carries, and in memory that both share. No sum ever changes. A number that goes back and forth
// between the two is never more than one ahead. A snapshot that is not of one instant breaks a sum for good.
// Argument `medium`: the largest book has a third of that; `calm`: likewise, and only some hundred cells of it are
// written, each in a page of its own; `small`: it is no larger than the others.
#include "subject.h"
#include <pthread.h>
#include <sys/mman.h>

#define OWN_CELLS (6u << 20)  // 48 MiB
#define MEDIUM_CELLS (2u << 20)
#define FEW_CELLS (32u << 10) // 256 KiB
#define CALM_CELLS 300
#define START 1000

struct book {
    uint64_t *cells;
    unsigned count;
    pthread_mutex_t *lock;
    unsigned every; // So many cells lie from one that is written to the next.
};

static struct shared {
    pthread_mutex_t lock;
    volatile int stop;
    uint64_t cells[FEW_CELLS];
} *shared;

static struct book books[4];
static _Atomic unsigned begun;
static unsigned own_cells = OWN_CELLS, written_cells = OWN_CELLS;

static uint64_t *area(unsigned cells, int advice) {
    size_t bytes = cells * sizeof(uint64_t);
    uint64_t *area = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(area != MAP_FAILED);
    if (advice) MUST(!madvise(area, bytes, advice));
    return area;
}

static uint64_t *cell(struct book *book, uint64_t random) {
    return &book->cells[random % (book->count / book->every) * book->every];
}

static void *transfer(void *seed) {
    uint64_t random = (uintptr_t)seed * 88172645463325252u + getpid();
    begun++;
    while (!shared->stop) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        struct book *book = &books[random % 4];
        uint64_t *from = cell(book, random >> 8), *to = cell(book, random >> 32);
        pthread_mutex_lock(book->lock);
        uint64_t amount = *from / 3;
        *from -= amount;
        *to += amount;
        pthread_mutex_unlock(book->lock);
    }
    return NULL;
}

static void open_books(void) {
    static pthread_mutex_t locks[3] = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER,
                                       PTHREAD_MUTEX_INITIALIZER};
    // Of a huge page no tracker tells which part was written.
    int advice = written_cells < own_cells ? MADV_NOHUGEPAGE : 0;
    books[0] = (struct book){area(own_cells, advice), own_cells, &locks[0], own_cells / written_cells};
    books[1] = (struct book){area(FEW_CELLS, MADV_DONTFORK), FEW_CELLS, &locks[1], 1};
    books[2] = (struct book){area(FEW_CELLS, MADV_WIPEONFORK), FEW_CELLS, &locks[2], 1};
    books[3] = (struct book){shared->cells, FEW_CELLS, &shared->lock, 1};
    for (int i = 0; i < 3; i++)
        for (unsigned at = 0; at < books[i].count; at++) books[i].cells[at] = START;
}

static void close_books(void) {
    for (int i = 0; i < 4; i++) {
        uint64_t sum = 0;
        for (unsigned at = 0; at < books[i].count; at++) sum += books[i].cells[at];
        if (sum != (uint64_t)books[i].count * START) fail("book %d is off by %ld", i, (long)(sum - (uint64_t)books[i].count * START));
    }
}

static uint64_t *last;

static void *pass_on(void *ends) {
    const int *end = ends;
    uint64_t number;
    while (read(end[0], &number, sizeof number) == sizeof number) {
        if (number != *last + 1) fail("%lu came after %lu", number, *last);
        *last = number;
        if (shared->stop) break;
        if (write(end[1], &number, sizeof number) != sizeof number) break;
    }
    return NULL;
}

static void *start_and_count(void *ends) {
    const int *end = ends;
    while (!shared->stop) {
        uint64_t number = *last + 1;
        MUST(write(end[1], &number, sizeof number) == sizeof number);
        *last = number;
        if (read(end[0], &number, sizeof number) != sizeof number) break;
        if (number != *last) fail("%lu came back for %lu", number, *last);
    }
    close(end[1]);
    return NULL;
}

static void work(void *(*talk)(void *), int in, int out) {
    static uint64_t count;
    int ends[2] = {in, out};
    pthread_t threads[3];
    last = &count;
    open_books();
    leave_term();
    for (uintptr_t i = 1; i < 3; i++) MUST(!pthread_create(&threads[i], NULL, transfer, (void *)i));
    while (begun < 2) usleep(1000);
    MUST(!pthread_create(&threads[0], NULL, talk, ends));
    if (talk == start_and_count) {
        // Once a number has come back, the child has all its books, and its threads, too.
        while (*(volatile uint64_t *)last < 2) usleep(1000);
        until_told();
        shared->stop = 1;
    }
    for (int i = 0; i < 3; i++) MUST(!pthread_join(threads[i], NULL));
    close_books();
}

int main(int count, char **args) {
    const char *how = count > 1 ? args[1] : "";
    if (!strcmp(how, "small")) own_cells = written_cells = FEW_CELLS;
    if (!strcmp(how, "medium")) own_cells = written_cells = MEDIUM_CELLS;
    if (!strcmp(how, "calm")) own_cells = MEDIUM_CELLS, written_cells = CALM_CELLS;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    MUST(shared != MAP_FAILED);
    pthread_mutexattr_t both;
    pthread_mutexattr_init(&both);
    pthread_mutexattr_setpshared(&both, PTHREAD_PROCESS_SHARED);
    MUST(!pthread_mutex_init(&shared->lock, &both));
    for (unsigned at = 0; at < FEW_CELLS; at++) shared->cells[at] = START;
    int there[2], back[2], status;
    MUST(!pipe(there) && !pipe(back));
    pid_t child = fork();
    MUST(child >= 0);
    if (!child) {
        close(there[1]), close(back[0]);
        work(pass_on, there[0], back[1]);
        _exit(0);
    }
    close(there[0]), close(back[1]);
    work(start_and_count, back[0], there[1]);
    MUST(waitpid(child, &status, 0) == child);
    if (status) fail("the child: status %x", status);
    return ok();
}
