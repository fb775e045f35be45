#!/usr/bin/env python3
"""A shell's job loses its terminal and gets another: dump --shell-job, undump --shell-job.

Two shells, each on a terminal of its own; the job begins in the first and ends in the second, which sees
what it writes and its exit status. Says OK at the end.
"""
import os
import pty
import re
import select
import subprocess
import sys
import time

SNAPD = sys.argv[1]
JOB = "echo start $$; read word; echo got $word; exit 7"


def shell():
    pid, terminal = pty.fork()
    if pid == 0:
        os.closerange(3, 1024)
        os.environ["PS1"] = "ready> "
        os.execvp("bash", ["bash", "--norc", "--noediting", "-i"])
    await_text(terminal, "ready> ")
    return terminal


def await_text(terminal, pattern):
    seen, end = "", time.monotonic() + 20
    while not re.search(pattern, seen):
        assert time.monotonic() < end, f"no {pattern!r} in {seen!r}"
        if select.select([terminal], [], [], 0.1)[0]:
            seen += os.read(terminal, 4096).decode()
    return re.search(pattern, seen)


def type_in(terminal, line):
    os.write(terminal, line.encode() + b"\n")


def snapd(*args):
    return subprocess.run([SNAPD, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True)


first = shell()
type_in(first, f"bash -c '{JOB}'")
job = await_text(first, r"start (\d+)\r").group(1)

refused = snapd("dump", "--pid", job, "--images", "image")
assert refused.returncode == 1 and "pty:outside" in refused.stderr, refused
dumped = snapd("dump", "--shell-job", "--pid", job, "--images", "image")
assert dumped.returncode == 0, dumped
await_text(first, "Killed(.|\\s)*ready> ")

refused = snapd("undump", "--images", "image", "--detach")
assert refused.returncode == 1 and "--shell-job" in refused.stderr, refused

second = shell()
type_in(second, f"{SNAPD} undump --shell-job --images image; echo ended $?")
time.sleep(1)
type_in(second, "hello")
await_text(second, "got hello\r")
await_text(second, "ended 7\r")
print("OK")
