// cc: gcc -O1 -g -Wall
// epoll: interest lists with their events and data, edge and one-shot entries, one epoll inside another,
// and entries that were added by a number which means another file by now, or none.
#include "subject.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

static int poller, outer;

static void add(int at, int fd, uint32_t events, uint64_t data) {
    struct epoll_event event = {events, {.u64 = data}};
    MUST(epoll_ctl(at, EPOLL_CTL_ADD, fd, &event) == 0);
}

int main(void) {
    int level = eventfd(0, 0), edge = eventfd(0, 0), once = eventfd(0, 0), ends[2];
    MUST(pipe(ends) == 0);
    MUST((poller = epoll_create1(EPOLL_CLOEXEC)) >= 0 && (outer = epoll_create1(0)) >= 0);
    add(poller, level, EPOLLIN, 0x1111222233334444);
    add(poller, edge, EPOLLIN | EPOLLET, 2);
    add(poller, once, EPOLLIN | EPOLLONESHOT, 3);
    add(poller, ends[0], EPOLLIN | EPOLLRDHUP, 4);
    add(outer, poller, EPOLLIN, 99);
    int first = eventfd(0, 0), second = eventfd(0, 0), stale = epoll_create1(0), number = dup(first), closed = dup(second);
    add(stale, number, EPOLLIN, 5);
    MUST(dup2(second, number) == number);
    add(stale, number, EPOLLIN, 6);
    MUST(dup2(level, number) == number);
    add(stale, closed, EPOLLIN, 7);
    MUST(close(closed) == 0);
    until_told();
    struct epoll_event events[8];
    uint64_t one = 1;
    MUST(epoll_wait(poller, events, 8, 0) == 0);
    MUST(write(level, &one, 8) == 8);
    MUST(epoll_wait(outer, events, 8, 1000) == 1 && events[0].data.u64 == 99);
    MUST(epoll_wait(poller, events, 8, 1000) == 1 && events[0].data.u64 == 0x1111222233334444);
    MUST(epoll_wait(poller, events, 8, 0) == 1 && read(level, &one, 8) == 8);
    MUST(write(edge, &one, 8) == 8 && epoll_wait(poller, events, 8, 1000) == 1 && events[0].data.u64 == 2);
    MUST(epoll_wait(poller, events, 8, 0) == 0);
    MUST(write(once, &one, 8) == 8 && epoll_wait(poller, events, 8, 1000) == 1 && events[0].data.u64 == 3);
    MUST(write(once, &one, 8) == 8 && epoll_wait(poller, events, 8, 0) == 0);
    MUST(close(ends[1]) == 0 && epoll_wait(poller, events, 8, 1000) == 1 && events[0].events == EPOLLHUP);
    MUST(epoll_wait(stale, events, 8, 0) == 0);
    MUST(write(first, &one, 8) == 8 && epoll_wait(stale, events, 8, 1000) == 1 && events[0].data.u64 == 5);
    MUST(read(first, &one, 8) == 8 && write(second, &one, 8) == 8 && epoll_wait(stale, events, 8, 1000) == 2);
    MUST(events[0].data.u64 + events[1].data.u64 == 13 && fcntl(closed, F_GETFD) == -1);
    return ok();
}
