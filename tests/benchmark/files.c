// FOLDER COUNT KIB: makes so many files of so many KiB in a folder, and keeps them open for writing.
#include "subject.h"
#include <sys/resource.h>

int main(int count, char **args) {
    MUST(count == 4);
    struct rlimit many;
    MUST(getrlimit(RLIMIT_NOFILE, &many) == 0);
    many.rlim_cur = many.rlim_max;
    MUST(setrlimit(RLIMIT_NOFILE, &many) == 0);
    size_t size = atol(args[3]) << 10;
    uint64_t *words = malloc(size), state = 88172645463325252;
    MUST(words);
    for (int i = 0; i < atoi(args[2]); i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%d", args[1], i);
        for (size_t word = 0; word < size / 8; word++) state ^= state << 13, state ^= state >> 7, state ^= state << 17, words[word] = state;
        int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        MUST(file >= 0);
        MUST(write(file, words, size) == (ssize_t)size);
    }
    free(words);
    until_told();
    return ok();
}
