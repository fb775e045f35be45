// cc: gcc -O1 -g -Wall
// What the kernel makes up elsewhere than in /proc: a file of sysfs, read to a position, and a directory.
#include "subject.h"
#include <dirent.h>

#define FILE_PATH "/sys/kernel/mm/transparent_hugepage/enabled"

int main(void) {
    char before[200] = "", after[200] = "";
    int file = open(FILE_PATH, O_RDONLY), folder = open("/sys/kernel", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    MUST(file >= 0 && folder >= 0);
    MUST(pread(file, before, sizeof before, 0) > 0 && read(file, after, 3) == 3);
    until_told();
    MUST(lseek(file, 0, SEEK_CUR) == 3 && pread(file, after, sizeof after, 0) > 0);
    MUST(!strcmp(before, after));
    DIR *listing = fdopendir(folder);
    int seen = 0;
    for (struct dirent *entry; (entry = readdir(listing));) seen += !strcmp(entry->d_name, "mm");
    MUST(seen == 1 && fcntl(folder, F_GETFD) == FD_CLOEXEC);
    return ok();
}
