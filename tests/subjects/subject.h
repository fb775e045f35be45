// What subjects share. A subject sets something up, says READY, and waits; told by TERM, it checks that
// everything is as it was, says OK or FAIL with the reason, and its exit status says so too.
// It never assumes anything about time: between READY and TERM it may be saved, killed and restored.
#ifndef SUBJECT_H
#define SUBJECT_H
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t told;

static void on_term(int signal) {
    (void)signal;
    told = 1;
}

__attribute__((constructor)) static void listen_for_term(void) {
    struct sigaction action = {.sa_handler = on_term, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &action, NULL);
}

__attribute__((format(printf, 1, 2), noreturn, unused)) static void fail(const char *format, ...) {
    char text[400];
    int length = snprintf(text, sizeof text, "FAIL: ");
    va_list args;
    va_start(args, format);
    length += vsnprintf(text + length, sizeof text - length - 1, format, args);
    va_end(args);
    if (length > (int)sizeof text - 2) length = sizeof text - 2;
    text[length++] = '\n';
    ssize_t ignored = write(1, text, length);
    (void)ignored;
    _exit(1);
}

// Fails with the place and the kernel's error unless the condition holds.
#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) fail("%s:%d: %s (%s)", __FILE_NAME__, __LINE__, #condition, strerror(errno)); \
    } while (0)

__attribute__((unused)) static void say(const char *line) {
    ssize_t ignored = write(1, line, strlen(line));
    ignored = write(1, "\n", 1);
    (void)ignored;
}

// TERM is for whoever waits until told. Threads that are made from now on leave it to that one: while all stand
// still for a snapshot, the kernel gives it to any thread that takes it, and who waits would not wake.
__attribute__((unused)) static void leave_term(void) {
    sigset_t term;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &term, NULL);
}

// READY, then sleep until TERM.
__attribute__((unused)) static void until_told(void) {
    sigset_t old;
    pthread_sigmask(SIG_SETMASK, NULL, &old);
    leave_term();
    say("READY");
    sigset_t wait = old;
    sigdelset(&wait, SIGTERM);
    while (!told) sigsuspend(&wait);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

__attribute__((unused)) static int ok(void) {
    say("OK");
    return 0;
}

__attribute__((unused)) static double now_ms(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

__attribute__((unused)) static void sleep_ms(long ms) {
    struct timespec rest = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&rest, &rest)) continue;
}
#endif
