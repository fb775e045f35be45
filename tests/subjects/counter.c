// cc: gcc -O1 -g -Wall -static
// A static program that counts and keeps a checksum of what it counted.
#include "subject.h"

int main(void) {
    uint64_t count = 0, sum = 0;
    say("READY");
    while (!told) {
        count++;
        sum += count * count;
    }
    uint64_t again = 0;
    for (uint64_t i = 1; i <= count; i++) again += i * i;
    if (again != sum) fail("after %lu steps: %lu, not %lu", count, sum, again);
    return ok();
}
