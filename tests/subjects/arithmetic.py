#!/usr/bin/python3
"""Arithmetic in four threads, big integers and floats, until TERM; then each sum is computed anew."""
import signal, sys, threading

told = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: told.set())
results = {}


def work(seed):
    steps, value, root = 0, seed, 1.0
    while not told.is_set():
        for _ in range(500):
            value = (value * 6364136223846793005 + 1442695040888963407) % (1 << 128)
            root = root * 0.999 + (value % 1000) / 1000
            steps += 1
        results[seed] = (steps, value, root)


def again(seed, steps):
    value, root = seed, 1.0
    for _ in range(steps):
        value = (value * 6364136223846793005 + 1442695040888963407) % (1 << 128)
        root = root * 0.999 + (value % 1000) / 1000
    return value, root


threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
for thread in threads:
    thread.start()
print("READY", flush=True)
while not told.is_set():
    told.wait(0.1)
for thread in threads:
    thread.join()
for seed, (steps, value, root) in sorted(results.items()):
    if again(seed, steps) != (value, root):
        print(f"FAIL: thread {seed} after {steps} steps")
        sys.exit(1)
print("OK", flush=True)
