#!/usr/bin/python3
"""Numbers the lines of its input, slowly, and says at the end how many there were: numbered.py PAUSE_MS."""
import sys, time

number = 0
for line in sys.stdin:
    number += 1
    sys.stdout.write(f"{number}:{line}")
    sys.stdout.flush()
    time.sleep(float(sys.argv[1]) / 1000)
print("total", number)
