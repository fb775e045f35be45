// cc: gcc -O1 -g -Wall
// Kinds: unix, inet
// Sockets that listen or are not connected: TCP, UDP and Unix, with their addresses and options, and a
// connection by name inside the tree.
#include "subject.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>

int main(void) {
    char folder[] = "sockets-XXXXXX", text[20];
    MUST(mkdtemp(folder) && chdir(folder) == 0);
    struct sockaddr_in loopback = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, seen;
    socklen_t length = sizeof seen;
    int on = 1, tcp = socket(AF_INET, SOCK_STREAM, 0), udp = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    MUST(setsockopt(tcp, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 && setsockopt(tcp, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
    MUST(bind(tcp, (void *)&loopback, sizeof loopback) == 0 && listen(tcp, 17) == 0);
    MUST(getsockname(tcp, (void *)&seen, &length) == 0);
    struct sockaddr_in tcp_at = seen;
    MUST(bind(udp, (void *)&loopback, sizeof loopback) == 0 && getsockname(udp, (void *)&seen, &length) == 0);
    struct sockaddr_in udp_at = seen;
    int fresh = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un name = {AF_UNIX, "socket"};
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0), server;
    MUST(bind(listener, (void *)&name, sizeof name) == 0 && listen(listener, 5) == 0);
    MUST(connect(client, (void *)&name, sizeof name) == 0 && (server = accept(listener, NULL, NULL)) >= 0);
    MUST(write(client, "queued", 6) == 6);
    until_told();
    MUST(read(server, text, 20) == 6 && write(server, "yes", 3) == 3 && read(client, text, 20) == 3);
    int second = socket(AF_UNIX, SOCK_STREAM, 0);
    MUST(connect(second, (void *)&name, sizeof name) == 0 && accept(listener, NULL, NULL) >= 0);
    MUST(getsockname(tcp, (void *)&seen, &length) == 0 && seen.sin_port == tcp_at.sin_port);
    int caller = socket(AF_INET, SOCK_STREAM, 0), value = 0;
    MUST(connect(caller, (void *)&tcp_at, sizeof tcp_at) == 0 && accept(tcp, NULL, NULL) >= 0);
    length = sizeof value;
    MUST(getsockopt(tcp, IPPROTO_TCP, TCP_NODELAY, &value, &length) == 0 && value == 1);
    int sender = socket(AF_INET, SOCK_DGRAM, 0);
    MUST(sendto(sender, "gram", 4, 0, (void *)&udp_at, sizeof udp_at) == 4 && recv(udp, text, 20, 0) == 4);
    MUST(fcntl(fresh, F_GETFD) == FD_CLOEXEC);
    return ok();
}
