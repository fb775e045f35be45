// cc: gcc -O1 -g -Wall -pthread -mamx-tile
// What AMX keeps in its tiles, in two threads, and the permission to use them. On a processor without it this
// has nothing to lose.
#include "subject.h"
#include <cpuid.h>
#include <immintrin.h>
#include <pthread.h>
#include <sys/syscall.h>

#define REQUEST_PERMISSION 0x1023 // ARCH_REQ_XCOMP_PERM
#define GET_PERMISSION 0x1022     // ARCH_GET_XCOMP_PERM
#define TILE_DATA 18

struct config {
    uint8_t palette, start[15];
    uint16_t bytes[16];
    uint8_t rows[16];
} __attribute__((aligned(64)));

static pthread_barrier_t loaded, restored;

static int has_tiles(void) {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 24 & 1);
}

static void keep(int seed) {
    struct config config = {.palette = 1}, after;
    unsigned char before[3][1024], now[1024];
    for (int tile = 0; tile < 3; tile++) {
        config.bytes[tile] = 64, config.rows[tile] = 16;
        for (int i = 0; i < 1024; i++) before[tile][i] = seed + tile * 31 + i * 7;
    }
    _tile_loadconfig(&config);
    _tile_loadd(0, before[0], 64);
    _tile_loadd(1, before[1], 64);
    _tile_loadd(2, before[2], 64);
    pthread_barrier_wait(&loaded);
    pthread_barrier_wait(&restored);
    _tile_storeconfig(&after);
    MUST(!memcmp(&config, &after, sizeof config));
    _tile_stored(0, now, 64);
    MUST(!memcmp(now, before[0], 1024));
    _tile_stored(1, now, 64);
    MUST(!memcmp(now, before[1], 1024));
    _tile_stored(2, now, 64);
    MUST(!memcmp(now, before[2], 1024));
    _tile_release();
}

static void *other(void *seed) {
    keep(*(int *)seed);
    return NULL;
}

int main(void) {
    unsigned long permitted = 0;
    if (!has_tiles()) {
        until_told();
        return ok();
    }
    MUST(syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0);
    pthread_barrier_init(&loaded, NULL, 3);
    pthread_barrier_init(&restored, NULL, 3);
    leave_term();
    pthread_t threads[2];
    int seeds[2] = {3, 91};
    for (int i = 0; i < 2; i++) MUST(pthread_create(&threads[i], NULL, other, &seeds[i]) == 0);
    pthread_barrier_wait(&loaded);
    until_told();
    MUST(syscall(SYS_arch_prctl, GET_PERMISSION, &permitted) == 0 && permitted >> TILE_DATA & 1);
    pthread_barrier_wait(&restored);
    for (int i = 0; i < 2; i++) MUST(pthread_join(threads[i], NULL) == 0);
    return ok();
}
