"""How long a program of 1,000 threads stands still, in milliseconds.

All of them asleep, and with 14 that never sleep. `pause` and `took` are those of `snapd snapshots`; of CRIU's
`dump --leave-running` what its statistics call frozen, and the whole process."""
from . import criu, table
from .program import Program, Supervised, alternately


def peers(lab, command):
    with lab.place() as place, Program(command, place) as program:
        return [criu.dump(lab.criu, program.pid, place) for _ in range(lab.rounds)]


def run(lab):
    table.head("threads", "pause, ms", "took, ms", *(["criu: frozen", "took", "pause, snapd/criu"] if lab.criu else []))
    for name, busy in (("1,000 asleep", 0), ("986 asleep, 14 busy", 14)):
        command = [lab.built("threads.c"), "1000", str(busy)]
        with lab.place() as place, Supervised(lab, command, place) as program:
            (snapshots,) = alternately([program], lab.rounds)
        pauses = [one["pause_ms"] for one in snapshots]
        cells = [name, table.cell(pauses), table.cell([one["took_ms"] for one in snapshots])]
        if lab.criu:
            dumps = peers(lab, command)
            frozen = [one.frozen for one in dumps]
            cells += [table.cell(frozen), table.cell([one.took for one in dumps]), table.ratio(pauses, frozen)]
        table.line(cells)
