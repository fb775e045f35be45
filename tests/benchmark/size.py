"""How long 4 GiB stand still to 1 GiB with as many written pages, in milliseconds.

Both programs are under supervision at once, write 13,107 pages at random (5 % of 1 GiB), and a snapshot is taken of each
in turn. CRIU reads everything each time."""
from . import table
from .program import Supervised, alternately


def run(lab):
    table.head("pause, 1 GiB, ms", "4 GiB, ms", "ratio", "took, 1 GiB, ms", "4 GiB, ms")
    dirty = lab.built("dirty.c")
    with lab.place() as one, lab.place() as other:
        with Supervised(lab, [dirty, "1024", "5"], one) as small, Supervised(lab, [dirty, "4096", "1.25"], other) as large:
            taken = alternately([small, large], lab.rounds, lambda program: program.ask("WRITTEN"))
    pauses, took = ([[one[what] for one in snapshots] for snapshots in taken] for what in ("pause_ms", "took_ms"))
    table.line([*map(table.cell, pauses), table.ratio(*reversed(pauses)), *map(table.cell, took)])
