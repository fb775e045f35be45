"""What 2,000 open, unchanged files of 1 GiB in all add to a pause, in milliseconds.

The same program with and without them, both under supervision, with a snapshot of each in turn; `added` are the
differences of two such pauses. CRIU does not save what files hold."""
import os

from . import table
from .program import Supervised, alternately

FILES, KIB = 2000, 524


def run(lab):
    table.head("pause without, ms", "with them, ms", "added, ms", "took without, ms", "took with them, ms")
    with lab.place() as bare, lab.place() as full:
        command = lambda place, count: [lab.built("files.c"), place, str(count), str(KIB)]
        with Supervised(lab, command(bare, 0), bare) as without, Supervised(lab, command(full, FILES), full) as them:
            taken = alternately([without, them], lab.rounds)
    pauses, took = ([[one[what] for one in snapshots] for snapshots in taken] for what in ("pause_ms", "took_ms"))
    added = [more - less for less, more in zip(*pauses)]
    table.line(map(table.cell, (*pauses, added, *took)))
