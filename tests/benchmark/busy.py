"""What a busy program loses to a snapshot each second, in hundredths of its throughput.

A program with 1 GiB reads pages at random as fast as it can and writes 5 % of them a second, with one thread and with
one for each processor. Its throughput with `snapd run --every 1s`, and with `criu dump --leave-running` each second, is
compared to that by itself just before, each over 8 s, N/3 times."""
import os, time

from . import criu, table
from .lab import each_second
from .program import Program, Supervised

SECONDS, MIB, WRITTEN = 8, 1024, 13107


def throughput(program, meanwhile):
    """Units of work in a second."""
    units, at = map(int, program.ask("UNITS").split()[1:])
    meanwhile()
    more, later = map(int, program.ask("UNITS").split()[1:])
    return (more - units) / (later - at) * 1e9


def peer(lab, program, place):
    dumps = []
    rate = throughput(program, lambda: each_second(SECONDS, lambda: dumps.append(criu.dump(lab.criu, program.pid, place))))
    return rate, len(dumps)


def ours(lab, command, place):
    with Supervised(lab, command, place, "--every", "1s") as program:
        before = program.settled()
        rate = throughput(program, lambda: time.sleep(SECONDS))
        taken = program.snapshots()
        return rate, [one for one in taken if one["seq"] > before["seq"]]


def run(lab):
    table.head("threads", "lost, %", "snapshots", "pause, ms", "took, ms", *(["criu: lost, %", "dumps"] if lab.criu else []))
    for threads in sorted({1, os.cpu_count()}):
        command = [lab.built("busy.c"), str(MIB), str(WRITTEN), str(threads)]
        lost, snapshots, theirs, dumps = [], [], [], 0
        rounds = max(1, lab.rounds // 3)
        for _ in range(rounds):
            with lab.place() as place:
                with Program(command, place) as program:
                    alone = throughput(program, lambda: time.sleep(SECONDS))
                    if lab.criu:
                        rate, taken = peer(lab, program, place)
                        theirs.append(100 - 100 * rate / alone)
                        dumps += taken
                rate, taken = ours(lab, command, place)
                lost.append(100 - 100 * rate / alone)
                snapshots += taken
        cells = [threads, table.cell(lost), f"{len(snapshots)} in {rounds * SECONDS} s"]
        cells += [table.cell([one[what] for one in snapshots]) for what in ("pause_ms", "took_ms")]
        table.line(cells + ([table.cell(theirs), dumps] if lab.criu else []))
