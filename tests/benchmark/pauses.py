"""How long programs stand still for a snapshot, and how long all of it takes, in milliseconds.

A program is run under supervision, and a snapshot of it is taken each time it has written so many of its pages at
random. The first snapshot after a start is whole: it is in rows of its own. `pause` and `took` (durable) are those of
`snapd snapshots`; of CRIU's `dump --leave-running` what its statistics call frozen, and the whole process, whose
images are not synced."""
import sys

from . import criu, table
from .program import Supervised, whole

# Name, MiB, hundredths of the pages that are written between two snapshots.
PROGRAMS = [("16 MiB", 16, 1), ("1 GiB", 1024, 1), ("1 GiB", 1024, 5)]
FULL_ROUNDS = 3


def measure(lab, command):
    """Whole snapshots and the others."""
    full, others = [], []
    for _ in range(FULL_ROUNDS):
        with lab.place() as place, Supervised(lab, command, place) as program:
            full.append(program.checkpoint())
            if len(full) < FULL_ROUNDS:
                continue
            for _ in range(lab.rounds):
                program.ask("WRITTEN")
                others.append(program.checkpoint())
    if any(map(whole, others)) or not all(map(whole, full)):
        sys.exit("what is whole is not what was expected")
    return full, others


def run(lab):
    table.pauses_head(["program", "written since"], lab.criu)
    write = lambda program: program.ask("WRITTEN")
    for name, mib, percent in PROGRAMS:
        command = [lab.built("dirty.c"), str(mib), str(percent)]
        dumps = criu.dumps(lab, command, write) if lab.criu else []
        for what, snapshots in zip(("all", f"{percent} %"), measure(lab, command)):
            table.pauses([name, what], snapshots, dumps)
