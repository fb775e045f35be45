// cc: gcc -O1 -g -Wall
// Files and directories of /proc: of the system, of ourselves and of a child, read to a position.
#include "subject.h"
#include <dirent.h>

int main(void) {
    char text[4096], path[64];
    int child = fork();
    if (child == 0) {
        signal(SIGTERM, SIG_DFL);
        for (;;) pause();
    }
    int uptime = open("/proc/uptime", O_RDONLY), own = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    snprintf(path, sizeof path, "/proc/%d/stat", child);
    int childs = open(path, O_RDONLY), folder = open("/proc/self/fd", O_RDONLY | O_DIRECTORY);
    int memory = open("/proc/self/mem", O_RDWR);
    MUST(memory >= 0 && uptime >= 0 && own >= 0 && childs >= 0 && folder >= 0);
    MUST(read(own, text, 5) == 5 && !memcmp(text, "Name:", 5));
    volatile int first = uptime;
    until_told();
    MUST(lseek(own, 0, SEEK_CUR) == 5 && fcntl(own, F_GETFD) == FD_CLOEXEC);
    MUST(pwrite(memory, &(int){5}, 4, (off_t)(uintptr_t)&uptime) == 4 && uptime == 5);
    uptime = first;
    ssize_t length = pread(own, text, sizeof text - 1, 0);
    MUST(length > 0);
    text[length] = 0;
    char line[64];
    snprintf(line, sizeof line, "\nPid:\t%d\n", getpid());
    MUST(strstr(text, line));
    length = read(childs, text, sizeof text - 1);
    MUST(length > 0 && (text[length] = 0, atoi(text)) == child);
    MUST(read(uptime, text, 1) == 1);
    DIR *listing = fdopendir(folder);
    int seen = 0;
    for (struct dirent *entry; (entry = readdir(listing));) seen += atoi(entry->d_name) == own;
    MUST(seen == 1);
    int status;
    MUST(kill(child, SIGTERM) == 0 && waitpid(child, &status, 0) == child && status == SIGTERM);
    return ok();
}
