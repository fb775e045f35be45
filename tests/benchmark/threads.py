"""How long a program of 1,000 threads stands still, in milliseconds.

All of them asleep, and with 14 that never sleep. `pause` and `took` are those of `snapd snapshots`; of CRIU's
`dump --leave-running` what its statistics call frozen, and the whole process."""
from . import criu, table
from .program import Supervised, alternately


def run(lab):
    table.pauses_head(["threads"], lab.criu)
    for name, busy in (("1,000 asleep", 0), ("986 asleep, 14 busy", 14)):
        command = [lab.built("threads.c"), "1000", str(busy)]
        with lab.place() as place, Supervised(lab, command, place) as program:
            (snapshots,) = alternately([program], lab.rounds)
        table.pauses([name], snapshots, criu.dumps(lab, command) if lab.criu else [])
