"""What ten snapshots of 1 GiB take on the disk, 5 % written before each but the first, in GiB.

Noise does not compress: ten such snapshots hold 1.45 GiB that differ. `store` is all of snapd's state directory,
`to memory` that to 1 GiB; of CRIU the ten dumps' files."""
import os

from . import criu, table
from .lab import size
from .program import Program, Supervised

GIB, SNAPSHOTS = 1 << 30, 10


def ten(program, snapshot):
    taken = [snapshot()]
    while len(taken) < SNAPSHOTS:
        program.ask("WRITTEN")
        taken.append(snapshot())
    return taken


def run(lab):
    table.head("data", "memory of the ten", "store", "to memory", *(["criu", "store, snapd/criu"] if lab.criu else []))
    for kind in ("noise", "text"):
        command = [lab.built("dirty.c"), "1024", "5", kind]
        with lab.place() as place, Supervised(lab, command, place) as program:
            memory = sum(one["memory_bytes"] for one in ten(program, program.checkpoint))
            stored = size(program.state)
        cells = [kind, f"{memory / GIB:.2f}", f"{stored / GIB:.2f}", f"{stored / GIB:.2f}"]
        if lab.criu:
            with lab.place() as place, Program(command, place) as program:
                theirs = sum(one.bytes for one in ten(program, lambda: criu.dump(lab.criu, program.pid, place)))
            cells += [f"{theirs / GIB:.2f}", f"{stored / theirs:.2f}"]
        table.line(cells)
