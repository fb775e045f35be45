// cc: gcc -O1 -g -Wall
// Attributes of threads and processes that few programs have, asked for by calls that only some kernels and
// accounts know: what was refused must be as it was, too. A second thread has none of those of threads.
#include "subject.h"
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

// include/uapi/linux/prctl.h, since 5.6; and since 6.18.
#define SET_IO_FLUSHER 57
#define THP_DISABLE_EXCEPT_ADVISED 2
// include/uapi/linux/{ioprio,keyctl}.h: no class, but a hint of how long the disk may take; the session's keyring.
#define HINT (3 << 3)
#define SET_REQKEY_KEYRING 14
#define SESSION_KEYRING 3

struct attributes {
    int flushes, huge_pages, priority, keyring;
};

static pthread_barrier_t barrier;

// PF_MEMALLOC_NOIO | PF_LOCAL_THROTTLE: the call that asks for them takes a privilege.
static int flushes(void) {
    char path[64], text[512] = "";
    unsigned flags = 0;
    snprintf(path, sizeof path, "/proc/self/task/%ld/stat", syscall(SYS_gettid));
    int file = open(path, O_RDONLY);
    MUST(file >= 0 && read(file, text, sizeof text - 1) > 0 && close(file) == 0);
    char *rest = strrchr(text, ')');
    MUST(rest && sscanf(rest, ") %*c %*d %*d %*d %*d %*d %u", &flags) == 1);
    return (flags & 0x180000) == 0x180000;
}

static struct attributes look(void) {
    return (struct attributes){
        flushes(),
        prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0),
        syscall(SYS_ioprio_get, 1, 0) & ~7, // A kernel may tell the level that follows from the nice value.
        syscall(SYS_keyctl, SET_REQKEY_KEYRING, -1),
    };
}

static void same(const char *who, struct attributes before) {
    struct attributes now = look();
    if (now.flushes != before.flushes) fail("%s flushes: %d, not %d", who, now.flushes, before.flushes);
    if (now.huge_pages != before.huge_pages) fail("%s: huge pages %d, not %d", who, now.huge_pages, before.huge_pages);
    if (now.priority != before.priority) fail("%s: priority %d, not %d", who, now.priority, before.priority);
    if (now.keyring != before.keyring) fail("%s: keyring %d, not %d", who, now.keyring, before.keyring);
}

static void *ordinary(void *nothing) {
    struct attributes before = look();
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    same("the ordinary thread", before);
    return nothing;
}

int main(void) {
    pthread_t thread;
    pthread_barrier_init(&barrier, NULL, 2);
    MUST(prctl(PR_SET_THP_DISABLE, 1, THP_DISABLE_EXCEPT_ADVISED, 0, 0) == 0 || prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
    leave_term();
    MUST(pthread_create(&thread, NULL, ordinary, NULL) == 0);
    pthread_barrier_wait(&barrier);
    MUST(prctl(SET_IO_FLUSHER, 1, 0, 0, 0) == 0 || errno == EPERM || errno == EINVAL);
    MUST(syscall(SYS_ioprio_set, 1, 0, HINT) == 0 || errno == EINVAL);
    MUST(syscall(SYS_keyctl, SET_REQKEY_KEYRING, SESSION_KEYRING) >= 0 || errno == ENOSYS);
    struct attributes before = look();
    until_told();
    same("the first thread", before);
    pthread_barrier_wait(&barrier);
    pthread_join(thread, NULL);
    return ok();
}
