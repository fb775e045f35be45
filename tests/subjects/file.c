// cc: gcc -O1 -g -Wall
// Regular files: position, append, O_PATH, deleted ones, O_TMPFILE, a shared mapping, all kinds of locks, names that are no text.
#include "subject.h"
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

int main(void) {
    char text[100], folder[] = "files-XXXXXX";
    struct stat facts;
    MUST(mkdtemp(folder) && chdir(folder) == 0);
    int plain = open("plain", O_RDWR | O_CREAT, 0640), append = open("plain", O_WRONLY | O_APPEND);
    MUST(write(plain, "0123456789", 10) == 10 && lseek(plain, 4, SEEK_SET) == 4);
    int path = open("plain", O_PATH), deleted = open("deleted", O_RDWR | O_CREAT, 0600);
    MUST(write(deleted, "only here", 9) == 9 && unlink("deleted") == 0);
    int nameless = open(".", O_TMPFILE | O_RDWR, 0600);
    MUST(nameless >= 0 && write(nameless, "nameless", 8) == 8);
    int mapped = open("mapped", O_RDWR | O_CREAT, 0600);
    MUST(ftruncate(mapped, 8192) == 0);
    char *area = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, mapped, 0);
    MUST(area != MAP_FAILED && close(mapped) == 0);
    strcpy(area + 4096, "kept by the mapping");
    int odd = open("odd\xff\n (deleted)", O_RDWR | O_CREAT, 0600), odd_gone = open("gone\xfe", O_RDWR | O_CREAT, 0600);
    MUST(write(odd, "odd", 3) == 3 && write(odd_gone, "gone", 4) == 4 && unlink("gone\xfe") == 0);
    char *odd_area = mmap(NULL, 3, PROT_READ, MAP_SHARED, odd, 0);
    MUST(odd_area != MAP_FAILED);
    int locks = open("locks", O_RDWR | O_CREAT, 0600), ofd = open("locks", O_RDWR), whole = open("whole", O_RDWR | O_CREAT, 0600);
    struct flock posix = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 5};
    struct flock open_file = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 7};
    MUST(fcntl(locks, F_SETLK, &posix) == 0 && fcntl(ofd, F_OFD_SETLK, &open_file) == 0 && flock(whole, LOCK_EX) == 0);
    until_told();
    MUST(lseek(plain, 0, SEEK_CUR) == 4 && read(plain, text, 100) == 6 && !memcmp(text, "456789", 6));
    MUST(write(append, "+", 1) == 1 && fstat(plain, &facts) == 0 && facts.st_size == 11);
    MUST(read(path, text, 1) == -1 && errno == EBADF && fstat(path, &facts) == 0 && facts.st_size == 11);
    MUST(pread(deleted, text, 100, 0) == 9 && fstat(deleted, &facts) == 0 && facts.st_nlink == 0);
    MUST(pread(nameless, text, 100, 0) == 8 && !memcmp(text, "nameless", 8));
    MUST(!strcmp(area + 4096, "kept by the mapping"));
    MUST(pread(odd, text, 100, 0) == 3 && !memcmp(odd_area, "odd", 3) && pread(odd_gone, text, 100, 0) == 4);
    area[0] = 'w';
    MUST((mapped = open("mapped", O_RDONLY)) >= 0 && read(mapped, text, 1) == 1 && text[0] == 'w');
    int child = fork();
    if (child == 0) {
        struct flock ask = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 12, .l_len = 1};
        MUST(fcntl(locks, F_GETLK, &ask) == 0 && ask.l_type == F_WRLCK && ask.l_start == 10 && ask.l_len == 5 && ask.l_pid == getppid());
        int other = open("locks", O_RDWR), third = open("whole", O_RDWR);
        struct flock beyond = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 103, .l_len = 1};
        MUST(fcntl(other, F_OFD_GETLK, &beyond) == 0 && beyond.l_type == F_WRLCK && beyond.l_start == 100);
        MUST(flock(third, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK);
        _exit(0);
    }
    int status;
    MUST(waitpid(child, &status, 0) == child && status == 0);
    return ok();
}
