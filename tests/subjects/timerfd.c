// cc: gcc -O1 -g -Wall
// timerfds: armed far ahead, with an interval, expired and not read, disarmed, and absolute on real time.
#include "subject.h"
#include <sys/timerfd.h>

int main(void) {
    int far = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), expired = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    int idle = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK), wall = timerfd_create(CLOCK_REALTIME, 0);
    struct itimerspec ahead = {{3, 7}, {5000, 0}}, soon = {{0, 0}, {0, 1000000}}, absolute = {{0, 0}, {4000000000, 0}}, now;
    MUST(timerfd_settime(far, 0, &ahead, NULL) == 0 && timerfd_settime(expired, 0, &soon, NULL) == 0);
    MUST(timerfd_settime(wall, TFD_TIMER_ABSTIME, &absolute, NULL) == 0);
    sleep_ms(20);
    until_told();
    uint64_t ticks = 0;
    MUST(timerfd_gettime(far, &now) == 0 && now.it_interval.tv_sec == 3 && now.it_interval.tv_nsec == 7);
    MUST(now.it_value.tv_sec > 4000 && now.it_value.tv_sec <= 5000);
    MUST(read(expired, &ticks, 8) == 8 && ticks == 1 && read(expired, &ticks, 8) == -1 && errno == EAGAIN);
    MUST(read(idle, &ticks, 8) == -1 && errno == EAGAIN && fcntl(idle, F_GETFD) == FD_CLOEXEC);
    MUST(timerfd_gettime(wall, &now) == 0 && now.it_value.tv_sec + time(NULL) > 3999999990);
    MUST(timerfd_settime(far, 0, &soon, NULL) == 0);
    sleep_ms(20);
    MUST(read(far, &ticks, 8) == 8 && ticks == 1);
    return ok();
}
