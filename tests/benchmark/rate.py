"""How many snapshots a second can be sustained, each durable before the next begins.

"on its own": snapd run --every 1ms, which takes one whenever the one before is done, of a program that writes pages at
a steady rate; "asked for": a script runs `snapd checkpoint` (and `criu dump --leave-running`, not synced) over and over,
and each time has the program write first. Each figure is of one run of 10 s."""
import datetime, statistics, time

from . import criu, table
from .program import Program, Supervised

SECONDS = 10
# Name, MiB, hundredths of the pages that are written when asked, pages that are written in a second.
PROGRAMS = [("16 MiB", 16, 1, 2000), ("1 GiB", 1024, 0.1, 3840)]


def taken_at(snapshot):
    return datetime.datetime.fromisoformat(snapshot["taken_at"].replace("Z", "+00:00")).timestamp()


def on_its_own(lab, command, place):
    """By the catalog, which keeps the newest: their numbers tell how many there have been."""
    with Supervised(lab, command, place, "--every", "1ms") as program:
        first = program.settled()
        time.sleep(SECONDS)
        last = program.snapshots()
    rate = (last[-1]["seq"] - first["seq"]) / (taken_at(last[-1]) - taken_at(first))
    return rate, last


def asked_for(program, snapshot):
    """Snapshots a second, and what was taken."""
    taken, start = [], time.monotonic()
    while (now := time.monotonic() - start) < SECONDS:
        program.ask("WRITTEN")
        taken.append(snapshot())
    return len(taken) / now, taken


def show(program, how, rate, snapshots, peer):
    of = lambda name, unit=1: statistics.median(one[name] for one in snapshots) / unit
    cells = [program, how, f"{rate:.1f}", f"{of('changed_bytes', 1 << 20):.1f}", f"{of('pause_ms'):.1f}", f"{of('took_ms'):.1f}"]
    table.line(cells + peer)


def run(lab):
    table.head("program", "how", "snapshots/s", "changed, MiB", "pause, ms", "took, ms", *(["criu, dumps/s"] if lab.criu else []))
    for name, mib, percent, rate in PROGRAMS:
        with lab.place() as place:
            paced = [lab.built("paced.c"), str(mib), str(rate)]
            show(name, "on its own", *on_its_own(lab, paced, place), [""] * bool(lab.criu))
        dirty = [lab.built("dirty.c"), str(mib), str(percent)]
        with lab.place() as place, Supervised(lab, dirty, place) as program:
            program.checkpoint()
            ours = asked_for(program, program.checkpoint)
        peer = []
        if lab.criu:
            with lab.place() as place, Program(dirty, place) as program:
                theirs, _ = asked_for(program, lambda: criu.dump(lab.criu, program.pid, place))
            peer = [f"{theirs:.1f}"]
        show(name, "asked for", *ours, peer)
