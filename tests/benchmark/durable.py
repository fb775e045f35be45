"""A whole checkpoint of 1 GiB that runs on, until it is durable, in milliseconds.

`whole`: the first of a supervised program; `1 %`: the next, after so many pages were written at random. CRIU's
`dump --leave-running` reads everything each time; "synced" adds a sync of its files."""
from . import criu, table
from .program import Supervised


def ours(lab, command):
    """Durations of first snapshots, and of second ones."""
    taken = []
    for _ in range(lab.rounds):
        with lab.place() as place, Supervised(lab, command, place) as program:
            first = program.checkpoint()
            program.ask("WRITTEN")
            taken.append((first["took_ms"], program.checkpoint()["took_ms"]))
    return zip(*taken)


def run(lab):
    table.head("data", "what", "took, ms", *(["criu, ms", "criu, synced", "snapd/criu, synced"] if lab.criu else []))
    for kind in ("noise", "text"):
        command = [lab.built("dirty.c"), "1024", "1", kind]
        dumps = criu.dumps(lab, command, durable=True) if lab.criu else []
        for what, took in zip(("whole", "1 %"), ours(lab, command)):
            cells = [kind, what, table.cell(took)]
            if dumps:
                synced = [one.synced for one in dumps]
                cells += [table.cell([one.took for one in dumps]), table.cell(synced), table.ratio(took, synced)]
            table.line(cells)
