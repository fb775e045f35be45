// cc: gcc -O1 -g -Wall
// Directories: opened ones half read, the working directory, and the umask for what is made there.
#include "subject.h"
#include <dirent.h>
#include <sys/stat.h>

int main(void) {
    char folder[] = "directory-XXXXXX", name[20];
    struct stat facts;
    MUST(mkdtemp(folder) && chdir(folder) == 0);
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof name, "entry%d", i);
        MUST(close(open(name, O_CREAT | O_WRONLY, 0600)) == 0);
    }
    umask(0027);
    int here = open(".", O_RDONLY | O_DIRECTORY);
    DIR *reading = opendir(".");
    MUST(here >= 0 && reading && readdir(reading));
    until_told();
    int rest = 0;
    while (readdir(reading)) rest++;
    MUST(rest == 21);
    MUST(close(openat(here, "new", O_CREAT | O_WRONLY, 0666)) == 0 && stat("new", &facts) == 0);
    MUST((facts.st_mode & 0777) == 0640);
    return ok();
}
