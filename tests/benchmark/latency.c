// MIB REQUESTS: a server with so many MiB of records of 4 KiB each, and a client, which asks for one of them or has one
// written, at random, so many times a second. Each USR1 has the client say in µs how long requests have
// taken since the last, each counted from the instant when it was due, whatever has kept it from being sent.
#include "subject.h"
#include <sys/mman.h>
#include <sys/socket.h>

enum { RECORD = 4096, KEPT = 1 << 20 };
struct request {
    uint64_t key, write;
    char record[RECORD];
};
static double latencies[KEPT];
static volatile sig_atomic_t asked;

static void ask(int signal) {
    (void)signal;
    asked = 1;
}

static void serve(int client, size_t records) {
    char *data = mmap(NULL, records * RECORD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(data != MAP_FAILED);
    for (size_t word = 0; word < records * RECORD / 8; word++) ((uint64_t *)data)[word] = word * 0x9e3779b97f4a7c15;
    say("READY");
    for (struct request request; recv(client, &request, sizeof request, 0) == sizeof request;) {
        char *record = data + request.key % records * RECORD;
        if (request.write)
            memcpy(record, request.record, RECORD);
        else
            memcpy(request.record, record, RECORD);
        MUST(send(client, &request, sizeof request, 0) == sizeof request);
    }
}

static int by_size(const void *left, const void *right) {
    double difference = *(const double *)left - *(const double *)right;
    return (difference > 0) - (difference < 0);
}

static void tell(size_t count) {
    if (count > KEPT) count = KEPT;
    qsort(latencies, count, sizeof *latencies, by_size);
    char line[200] = "LATENCY -";
    if (count)
        snprintf(line, sizeof line, "LATENCY %zu %.0f %.0f %.0f %.0f", count, latencies[count / 2], latencies[count * 99 / 100],
                 latencies[count * 999 / 1000], latencies[count - 1]);
    say(line);
}

int main(int count, char **args) {
    MUST(count == 3);
    int ends[2];
    double interval = 1e3 / atof(args[2]);
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0);
    signal(SIGUSR1, ask);
    pid_t server = fork();
    MUST(server >= 0);
    if (server == 0) {
        close(ends[0]);
        serve(ends[1], (size_t)atol(args[1]) << 20 >> 12);
        return 0;
    }
    close(ends[1]);
    struct request request = {0};
    size_t taken = 0;
    for (double due = 0; !told; due += interval) {
        if (asked) {
            asked = 0;
            tell(taken);
            taken = 0;
            due = now_ms(CLOCK_MONOTONIC);
        }
        double wait = due - now_ms(CLOCK_MONOTONIC);
        if (wait > 0) usleep(wait * 1e3);
        request.key = random(), request.write = random() & 1;
        MUST(send(ends[0], &request, sizeof request, 0) == sizeof request);
        while (recv(ends[0], &request, sizeof request, 0) != sizeof request) MUST(errno == EINTR);
        if (due > 0 && taken < KEPT) latencies[taken++] = (now_ms(CLOCK_MONOTONIC) - due) * 1e3;
        if (due == 0) due = now_ms(CLOCK_MONOTONIC);
    }
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    return ok();
}
