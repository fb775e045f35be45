// cc: gcc -O1 -g -Wall
// Names that are only held, by O_PATH: a symbolic link that is not followed, and a socket's file.
#include "subject.h"
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

int main(void) {
    struct sockaddr_un name = {AF_UNIX, "bound"};
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    MUST(symlink("to nowhere", "link") == 0);
    MUST(bind(listener, (struct sockaddr *)&name, sizeof name) == 0 && listen(listener, 3) == 0);
    int link = open("link", O_PATH | O_NOFOLLOW | O_CLOEXEC), file = open("bound", O_PATH);
    MUST(link >= 0 && file >= 0);
    until_told();
    struct stat held, now;
    char text[100];
    MUST(readlinkat(link, "", text, sizeof text) == 10 && !memcmp(text, "to nowhere", 10));
    MUST(fcntl(link, F_GETFD) == FD_CLOEXEC && fcntl(file, F_GETFD) == 0);
    MUST(fstat(file, &held) == 0 && S_ISSOCK(held.st_mode) && stat("bound", &now) == 0);
    MUST(held.st_ino == now.st_ino);
    // Through the file that is held, whoever listens is reached.
    struct sockaddr_un through = {AF_UNIX, ""};
    snprintf(through.sun_path, sizeof through.sun_path, "/proc/self/fd/%d", file);
    int caller = socket(AF_UNIX, SOCK_STREAM, 0);
    MUST(connect(caller, (struct sockaddr *)&through, sizeof through) == 0);
    MUST(accept(listener, NULL, NULL) >= 0);
    return ok();
}
