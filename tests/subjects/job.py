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


class Shell:
    """A shell on a terminal, and what it has shown that nobody has asked for yet: one read may bring
    the end of one answer together with the next."""

    def __init__(self):
        pid, self.terminal = pty.fork()
        if pid == 0:
            os.closerange(3, 1024)
            os.environ["PS1"] = "ready> "
            os.execvp("bash", ["bash", "--norc", "--noediting", "-i"])
        self.shown = ""
        self.shows("ready> ")

    def shows(self, pattern):
        end = time.monotonic() + 20
        while not (found := re.search(pattern, self.shown)):
            assert time.monotonic() < end, f"no {pattern!r} in {self.shown!r}"
            if select.select([self.terminal], [], [], 0.1)[0]:
                self.shown += os.read(self.terminal, 4096).decode()
        self.shown = self.shown[found.end():]
        return found

    def type_in(self, line):
        os.write(self.terminal, line.encode() + b"\n")


def snapd(*args):
    return subprocess.run([SNAPD, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True)


first = Shell()
first.type_in(f"bash -c '{JOB}'")
job = first.shows(r"start (\d+)\r").group(1)

refused = snapd("dump", "--pid", job, "--images", "image")
assert refused.returncode == 1 and "pty:outside" in refused.stderr, refused
dumped = snapd("dump", "--shell-job", "--pid", job, "--images", "image")
assert dumped.returncode == 0, dumped
first.shows("Killed(.|\\s)*ready> ")

refused = snapd("undump", "--images", "image", "--detach")
assert refused.returncode == 1 and "--shell-job" in refused.stderr, refused

second = Shell()
second.type_in(f"{SNAPD} undump --shell-job --images image; echo ended $?")
time.sleep(1)
second.type_in("hello")
second.shows("got hello\r")
second.shows("ended 7\r")
print("OK")
