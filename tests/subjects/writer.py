#!/usr/bin/python3
"""Writes numbered lines in one of five manners, slowly: writer.py MANNER COUNT PAUSE_MS, in the working
directory. What it leaves behind depends on MANNER and COUNT alone, so a run that was killed and brought
back can be compared to an undisturbed one."""
import os, sys, time


def line(number):
    return f"{number} {number * number} {'x' * (number % 50)}\n"


def pause(ms):
    # A little work between the lines, so that snapshots fall into both.
    sum(range(2000))
    time.sleep(ms / 1000)


def truncate(count, ms):
    with open("out", "w") as out:
        for number in range(count):
            out.write(line(number))
            if number % 3 == 0:
                out.flush()
            pause(ms)


def append(count, ms):
    out = os.open("out", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number in range(count):
        os.write(out, line(number).encode())
        pause(ms)


def reopen(count, ms):
    os.makedirs("tracked", exist_ok=True)
    for number in range(count):
        with open("tracked/out", "a") as out:
            out.write(line(number))
        pause(ms)


def rename(count, ms):
    os.makedirs("tracked", exist_ok=True)
    text = ""
    for number in range(count):
        text += line(number)
        with open("tracked/new", "w") as out:
            out.write(text)
        os.rename("tracked/new", "tracked/out")
        pause(ms)


def sqlite(count, ms):
    import sqlite3
    os.makedirs("tracked", exist_ok=True)
    base = sqlite3.connect("tracked/base.sqlite", isolation_level=None)
    base.execute("pragma journal_mode = wal")
    base.execute("pragma wal_autocheckpoint = 20")
    base.execute("create table if not exists lines (number integer primary key, text text)")
    for number in range(count):
        base.execute("begin")
        base.execute("insert into lines values (?, ?)", (number, line(number)))
        base.execute("commit")
        pause(ms)
    with open("tracked/out", "w") as out:
        for number, text in base.execute("select number, text from lines order by number"):
            out.write(text)
    base.close()


manner, count, ms = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
print("READY", flush=True)
globals()[manner](count, ms)
