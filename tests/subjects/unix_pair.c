// cc: gcc -O1 -g -Wall
// Socket pairs: queued bytes and datagrams, a descriptor in flight, options, credentials, a half closed one.
#include "subject.h"
#include <sys/socket.h>

int main(void) {
    int stream[2], packets[2], half[2];
    char text[100];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, stream) == 0 && socketpair(AF_UNIX, SOCK_SEQPACKET, 0, packets) == 0);
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, half) == 0);
    MUST(write(stream[0], "forth", 5) == 5 && write(stream[1], "and back", 8) == 8);
    MUST(send(packets[0], "one", 3, 0) == 3 && send(packets[0], "second", 6, 0) == 6);
    MUST(write(half[0], "rest", 4) == 4 && shutdown(half[0], SHUT_WR) == 0);
    int on = 1, size = 50000;
    MUST(setsockopt(stream[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0);
    MUST(setsockopt(packets[1], SOL_SOCKET, SO_RCVBUF, &size, sizeof size) == 0);
    signal(SIGPIPE, SIG_IGN);
    until_told();
    struct ucred peer;
    socklen_t length = sizeof peer;
    MUST(getsockopt(stream[0], SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.pid == getpid());
    MUST(read(stream[1], text, 100) == 5 && !memcmp(text, "forth", 5));
    MUST(read(stream[0], text, 100) == 8 && !memcmp(text, "and back", 8));
    MUST(recv(packets[1], text, 100, 0) == 3 && recv(packets[1], text, 100, 0) == 6 && !memcmp(text, "second", 6));
    MUST(read(half[1], text, 100) == 4 && read(half[1], text, 100) == 0 && write(half[1], "x", 1) == 1);
    MUST(write(half[0], "x", 1) == -1);
    length = sizeof on;
    MUST(getsockopt(stream[0], SOL_SOCKET, SO_PASSCRED, &on, &length) == 0 && on == 1);
    MUST(getsockopt(packets[1], SOL_SOCKET, SO_RCVBUF, &size, &length) == 0 && size == 100000);
    return ok();
}
