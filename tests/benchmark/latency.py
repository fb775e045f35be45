"""How long requests to a server with 1 GiB take while snapshots are taken, in milliseconds.

A client and a server, in one tree, joined by a socket: 1,000 requests a second, each of a record of 4 KiB, half of them
writes (2 MiB/s, at random). A request is counted from the instant when it was due, so a pause counts for all
that fell into it. Each row is of N times 10 s: by itself, with `snapd run --every 1s`, with
`criu dump --leave-running` each second. The figures are medians of the runs' percentiles."""
import time

from . import criu, table
from .lab import each_second
from .program import Program, Supervised

SECONDS, MIB, REQUESTS = 10, 1024, 1000


def percentiles(program, meanwhile):
    """p50, p99, p99.9 and the longest."""
    program.ask("LATENCY")
    meanwhile()
    return [int(us) / 1e3 for us in program.ask("LATENCY").split()[2:]]


def rest():
    time.sleep(SECONDS)


def alone(lab, command, place):
    with Program(command, place) as program:
        return percentiles(program, rest), []


def snapd(lab, command, place):
    with Supervised(lab, command, place, "--every", "1s") as program:
        before = program.settled()
        found = percentiles(program, rest)
        return found, [one["pause_ms"] for one in program.snapshots() if one["seq"] > before["seq"]]


def peer(lab, command, place):
    with Program(command, place) as program:
        dumps = []
        found = percentiles(program, lambda: each_second(SECONDS, lambda: dumps.append(criu.dump(lab.criu, program.pid, place))))
        return found, [one.frozen for one in dumps]


def run(lab):
    table.head("", "p50", "p99", "p99.9", "max", "snapshots", "their pauses", "longest")
    command = [lab.built("latency.c"), str(MIB), str(REQUESTS)]
    for name, tool in {"by itself": alone, "snapd": snapd, **({"criu": peer} if lab.criu else {})}.items():
        runs = []
        for _ in range(max(1, lab.rounds // 3)):
            with lab.place() as place:
                runs.append(tool(lab, command, place))
        columns, pauses = zip(*(found for found, _ in runs)), sum((pauses for _, pauses in runs), [])
        cells = [name, *(table.cell(column, 2) for column in columns)]
        table.line(cells + ([f"{len(pauses)} in {len(runs) * SECONDS} s", table.cell(pauses), f"{max(pauses):.1f}"] if pauses else [""] * 3))
