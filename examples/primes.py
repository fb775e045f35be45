"""Counts primes and writes each to a file: a long computation worth saving."""
import sys

out = open(sys.argv[1], "w")
found = []
number = 2
while len(found) < 60_000:
    if all(number % prime for prime in found if prime * prime <= number):
        found.append(number)
        out.write(f"{len(found)} {number}\n")
        out.flush()
    number += 1
