// cc: gcc -O1 -g -Wall
// memfds: contents, holes, name, seals, position, and a mapping that shares its pages with the descriptor.
#include "subject.h"
#include <sys/mman.h>

int main(void) {
    int open_ = memfd_create("open", MFD_CLOEXEC | MFD_ALLOW_SEALING), sealed = memfd_create("sealed", MFD_ALLOW_SEALING);
    MUST(ftruncate(open_, 1 << 20) == 0 && pwrite(open_, "far", 3, 900000) == 3 && lseek(open_, 77, SEEK_SET) == 77);
    char *shared = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, open_, 0);
    MUST(shared != MAP_FAILED);
    strcpy(shared + 5000, "through the mapping");
    MUST(write(sealed, "fixed", 5) == 5);
    MUST(fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_SEAL) == 0);
    until_told();
    char text[40];
    MUST(pread(open_, text, 40, 5000) == 40 && !strcmp(text, "through the mapping"));
    MUST(!memcmp(shared + 900000, "far", 3) && shared[500000] == 0 && lseek(open_, 0, SEEK_CUR) == 77);
    shared[0] = 'k';
    MUST(pread(open_, text, 1, 0) == 1 && text[0] == 'k');
    MUST(fcntl(open_, F_GET_SEALS) == 0);
    MUST(fcntl(sealed, F_GET_SEALS) == (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_SEAL));
    MUST(pwrite(sealed, "x", 1, 0) == -1 && errno == EPERM);
    MUST(pread(sealed, text, 9, 0) == 5 && !memcmp(text, "fixed", 5));
    return ok();
}
