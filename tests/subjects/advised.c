// cc: gcc -O1 -g -Wall
// Areas whose flags, places and lengths change all the time, some of which no fork carries: what it was told
// of them last, and what it wrote into them, it finds again.
#include "subject.h"
#include <pthread.h>
#include <sys/mman.h>

enum { AREAS = 12, PAGES = 512, PAGE = 4096 };

static struct area {
    unsigned char *start;
    int pages;
    int dumped, wiped, filler;
} areas[AREAS];
static volatile int done;

static const char *pattern(const struct area *area, int page) {
    static _Thread_local char text[32];
    snprintf(text, sizeof text, "area %ld page %d: %d", (long)(area - areas), page, area->filler);
    return text;
}

static void fill(struct area *area) {
    for (int page = 0; page < area->pages; page++) strcpy((char *)area->start + page * PAGE, pattern(area, page));
}

static void map(struct area *area) {
    // A hole on each side: areas that touch and are alike become one.
    unsigned char *room = mmap(NULL, (PAGES + 2) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(room != MAP_FAILED);
    area->start = room + PAGE;
    area->dumped = 1;
    area->wiped = 0;
    MUST(!mprotect(area->start, area->pages * PAGE, PROT_READ | PROT_WRITE));
    fill(area);
}

static void change(struct area *area, unsigned how) {
    size_t length = area->pages * PAGE;
    switch (how % 5) {
    case 0:
        area->dumped = !area->dumped;
        MUST(!madvise(area->start, length, area->dumped ? MADV_DODUMP : MADV_DONTDUMP));
        break;
    case 1:
        area->wiped = !area->wiped;
        MUST(!madvise(area->start, length, area->wiped ? MADV_WIPEONFORK : MADV_KEEPONFORK));
        break;
    case 2:
        MUST(!munmap(area->start - PAGE, (PAGES + 2) * PAGE));
        area->pages = PAGES / 2 + how / 5 % (PAGES / 2);
        map(area);
        break;
    case 3: // Grows or shrinks in its place.
        MUST(!munmap(area->start, PAGES * PAGE));
        area->pages = PAGES / 2 + how / 5 % (PAGES / 2);
        MUST(mmap(area->start, area->pages * PAGE, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == area->start);
        area->dumped = 1;
        area->wiped = 0;
        fill(area);
        break;
    case 4:
        area->filler++;
        fill(area);
    }
}

static void *torment(void *nothing) {
    unsigned random = 7;
    while (!done) {
        random = random * 1103515245 + 12345;
        int which = random >> 8 & 255;
        if (which % 16 >= AREAS) continue;
        change(&areas[which % 16], random >> 16);
        sleep_ms(1);
    }
    return nothing;
}

// The VmFlags of the area that begins at an address.
static const char *flags_at(const char *smaps, const unsigned char *start) {
    char line[40];
    snprintf(line, sizeof line, "%lx-", (unsigned long)start);
    const char *found = strstr(smaps, line);
    return found ? strstr(found, "VmFlags:") : NULL;
}

static void check(const struct area *area, const char *smaps) {
    const char *flags = flags_at(smaps, area->start);
    if (!flags) fail("area %ld is not at %p", (long)(area - areas), area->start);
    char line[200];
    snprintf(line, sizeof line, "%.*s", (int)strcspn(flags, "\n"), flags);
    if (!strstr(line, " dd") != area->dumped || !strstr(line, " wf") == area->wiped)
        fail("area %ld: dumped %d, wiped %d, but %s", (long)(area - areas), area->dumped, area->wiped, line);
    for (int page = 0; page < area->pages; page++)
        if (strcmp((char *)area->start + page * PAGE, pattern(area, page)))
            fail("%s reads \"%.30s\"", pattern(area, page), area->start + page * PAGE);
}

int main(void) {
    for (int i = 0; i < AREAS; i++) areas[i].pages = PAGES, map(&areas[i]);
    pthread_t thread;
    leave_term();
    MUST(!pthread_create(&thread, NULL, torment, NULL));
    until_told();
    done = 1;
    pthread_join(thread, NULL);
    static char smaps[1 << 20];
    int file = open("/proc/self/smaps", O_RDONLY);
    for (ssize_t length = 0, got; (got = read(file, smaps + length, sizeof smaps - 1 - length)) > 0;) length += got;
    for (int i = 0; i < AREAS; i++) check(&areas[i], smaps);
    return ok();
}
