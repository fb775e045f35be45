// cc: gcc -O2 -g -Wall
// An office of a kind: keeps some hundred files open in its folder, and does to one after the other, some far more
// often than others, what one can do to an open file: writes, reads, cuts, moves, replaces, reopens, locks it. It
// remembers in its memory what each must be, and looks before it touches one: after a restore it finds them so
// only if memory, descriptors and files are of the same instant.
#include "subject.h"
#include <sys/file.h>
#include <sys/stat.h>

enum { FILES = 160, MOST = 64 };

static struct {
    int number, size, position, moved, append, locked;
    char bytes[MOST];
} files[FILES];

static const char *name(int i) {
    static char text[64];
    snprintf(text, sizeof text, "file-%d%s", i, files[i].moved ? "-moved" : "");
    return text;
}

static void look(int i) {
    struct stat own, named;
    char bytes[MOST + 1];
    MUST(!fstat(files[i].number, &own) && !stat(name(i), &named));
    MUST(own.st_ino == named.st_ino && own.st_nlink == 1);
    MUST(own.st_size == files[i].size);
    MUST(pread(files[i].number, bytes, sizeof bytes, 0) == files[i].size);
    MUST(!memcmp(bytes, files[i].bytes, files[i].size));
    MUST(lseek(files[i].number, 0, SEEK_CUR) == files[i].position);
    MUST(!(fcntl(files[i].number, F_GETFL) & O_APPEND) == !files[i].append);
    MUST(!(fcntl(files[i].number, F_GETFD) & FD_CLOEXEC) == !(files[i].moved));
    int other = open(name(i), O_RDWR);
    MUST(other >= 0);
    MUST((flock(other, LOCK_EX | LOCK_NB) == 0) == !files[i].locked);
    close(other);
}

// Whoever looks at an open file holds it for some milliseconds, and its lock.
static void reopen(int i, int how) {
    MUST(!flock(files[i].number, LOCK_UN));
    int fresh = open(name(i), O_RDWR | how, 0600);
    MUST(fresh >= 0 && dup3(fresh, files[i].number, files[i].moved ? O_CLOEXEC : 0) == files[i].number);
    close(fresh);
    files[i].position = files[i].append = files[i].locked = 0;
}

static void put(int i, int at, char byte) {
    if (at >= files[i].size) {
        memset(files[i].bytes + files[i].size, 0, at - files[i].size);
        files[i].size = at + 1;
    }
    files[i].bytes[at] = byte;
}

static void touch(int i) {
    char byte = random();
    int at = random() % MOST, number = files[i].number;
    switch (random() % 10) {
    case 0:
        if (files[i].size == MOST) break;
        at = files[i].append ? files[i].size : files[i].position;
        if (at == MOST) break;
        MUST(write(number, &byte, 1) == 1);
        put(i, at, byte);
        files[i].position = at + 1;
        break;
    case 1:
        if (files[i].append) break; // Linux would append.
        MUST(pwrite(number, &byte, 1, at) == 1);
        put(i, at, byte);
        break;
    case 2:
        MUST(!ftruncate(number, at));
        if (at > files[i].size) memset(files[i].bytes + files[i].size, 0, at - files[i].size);
        files[i].size = at;
        break;
    case 3:
        MUST(lseek(number, at, SEEK_SET) == at);
        files[i].position = at;
        break;
    case 4: {
        char before[64];
        strcpy(before, name(i));
        files[i].moved = !files[i].moved;
        MUST(!rename(before, name(i)));
        MUST(!fcntl(number, F_SETFD, files[i].moved ? FD_CLOEXEC : 0));
        break;
    }
    case 5: reopen(i, 0); break;
    case 6:
        MUST(!unlink(name(i)));
        reopen(i, O_CREAT | O_EXCL);
        files[i].size = 0;
        break;
    case 7:
        files[i].append = !files[i].append;
        MUST(!fcntl(number, F_SETFL, files[i].append ? O_APPEND : 0));
        break;
    case 8:
        files[i].locked = !files[i].locked;
        MUST(!flock(number, files[i].locked ? LOCK_EX : LOCK_UN));
        break;
    default:
        MUST(read(number, &byte, 1) == (files[i].position < files[i].size));
        files[i].position += files[i].position < files[i].size;
    }
}

int main(void) {
    for (int i = 0; i < FILES; i++) MUST((files[i].number = open(name(i), O_RDWR | O_CREAT | O_EXCL, 0600)) >= 0);
    say("READY");
    while (!told) {
        // The last of them hardly ever.
        int i = random() % (1 + random() % (1 + random() % FILES));
        look(i);
        touch(i);
        usleep(random() % 200);
    }
    for (int i = 0; i < FILES; i++) look(i);
    return ok();
}
