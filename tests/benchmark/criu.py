"""CRIU, the peer: `dump --leave-running` of a process tree, and what it tells of it."""
import collections, os, shutil, struct, subprocess, sys, time

from .lab import size, sync
from .program import Program

# frozen: for how long it says that the tree stood. took: the whole process. synced: with making its files durable.
Dump = collections.namedtuple("Dump", "frozen took synced bytes")


def message(data):
    """The numbers and submessages of a protobuf message that has nothing else, by field."""
    fields, at = {}, 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = number()
        if key & 7 == 2:
            length = number()
            fields[key >> 3] = data[at:at + length]
            at += length
        else:
            fields[key >> 3] = number()
    return fields


def frozen_ms(images):
    """DumpStatsEntry.frozen_time of CRIU's images/stats.proto, in microseconds, behind two magics and a length."""
    with open(os.path.join(images, "stats-dump"), "rb") as file:
        data = file.read()
    (length,) = struct.unpack("<I", data[8:12])
    return message(message(data[12:12 + length])[1])[2] / 1e3


def dumps(lab, command, before=lambda program: None, durable=False):
    """Dumps of a program that nobody supervises, as many as there are rounds."""
    with lab.place() as place, Program(command, place) as program:
        taken = []
        for _ in range(lab.rounds):
            before(program)
            taken.append(dump(lab.criu, program.pid, place, durable))
        return taken


def dump(criu, pid, place, durable=False):
    """Dumps a tree that runs on into a folder that is gone afterwards."""
    images = os.path.join(place, "images")
    os.mkdir(images)
    try:
        start = time.monotonic()
        command = [criu, "dump", "--leave-running", "-t", str(pid), "-D", images, "-o", "dump.log"]
        if subprocess.run(command, capture_output=True).returncode:
            sys.exit(open(os.path.join(images, "dump.log")).read()[-2000:])
        took = (time.monotonic() - start) * 1e3
        return Dump(frozen_ms(images), took, took + (sync(images) if durable else 0), size(images))
    finally:
        shutil.rmtree(images)
