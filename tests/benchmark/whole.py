"""Whole processes, start to end: dump and undump, in milliseconds.

snapd's image is compressed and durable when dump returns, CRIU's is neither: "criu, synced" adds a sync of its
files. The ratio is snapd's median to CRIU's."""
import os, shutil, signal, statistics, subprocess, sys, time

from . import table
from .lab import sync
from .program import Program, alive, reap

SMALL = "squares = {n: str(n * n) for n in range(100000)}\n"
# All of the standard library that can be imported by itself, and objects until there are 90 MiB.
LARGE = """
import contextlib, importlib, io, sys, warnings
warnings.simplefilter("ignore")
for name in sorted(sys.stdlib_module_names - {"this", "antigravity", "idlelib", "turtledemo"}):
    with contextlib.suppress(BaseException), contextlib.redirect_stdout(io.StringIO()):
        importlib.import_module(name)
resident = lambda: int(open("/proc/self/statm").read().split()[1]) >> 8
kept = []
while resident() < 90:
    kept += [{"name": str(n), "values": [n, n * 0.5, (n,)]} for n in range(len(kept), len(kept) + 1000)]
"""
WAITS = "print('READY', flush=True)\nimport time\nwhile True: time.sleep(1)\n"


def call(*command):
    """Runs a command to its end; milliseconds."""
    start = time.monotonic()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    took = (time.monotonic() - start) * 1e3
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}")
    return took


def round_trip(commands, program, place):
    """Starts a program, dumps it, restores it, kills it; the times of dump, of a sync of the image, of undump."""
    pid = Program(program, place).pid
    time.sleep(0.05)
    images = os.path.join(place, "images")
    os.mkdir(images, 0o700)
    dump, restore = commands(pid, images)
    dumped = call(*dump)
    synced = sync(images) if "criu" in dump[0] else 0.0
    reap(pid)
    restored = call(*restore)
    if not alive(pid):
        sys.exit(f"{restore[0]} restored nothing")
    os.kill(pid, signal.SIGKILL)
    reap(pid)
    shutil.rmtree(images)
    return dumped, synced, restored


def tools(lab):
    found = {"snapd": lambda pid, images: ([lab.snapd, "dump", "--pid", str(pid), "--images", images],
                                           [lab.snapd, "undump", "--detach", "--images", images])}
    if lab.criu:
        found["criu"] = lambda pid, images: ([lab.criu, "dump", "-t", str(pid), "-D", images, "-o", "dump.log"],
                                             [lab.criu, "restore", "-d", "-D", images, "-o", "restore.log"])
    return found


def rows(program, runs):
    """The two lines of a program: {tool: [(dump, sync, undump)]}."""
    for operation, pick in (("dump", lambda one: one[0]), ("undump", lambda one: one[2])):
        times = {tool: [pick(one) for one in all_] for tool, all_ in runs.items()}
        cells = [program, operation, table.cell(times["snapd"])]
        if "criu" in runs:
            synced = [one[0] + one[1] for one in runs["criu"]]
            cells += [table.cell(times["criu"]), table.cell(synced) if operation == "dump" else ""]
            cells.append(table.ratio(times["snapd"], times["criu"]))
        table.line(cells)


def run(lab):
    memory = lab.built("memory.c")
    python = lambda text: ["/usr/bin/python3", "-c", text + WAITS]
    programs = {"C, 16 MiB": [memory, "16"], "C, 1 GiB": [memory, "1024"], "python3": python(SMALL),
                "python3, 90 MiB": python(LARGE)}
    by_tool = tools(lab)
    table.head("program", "operation", "snapd, ms", *(["criu, ms", "criu, synced", "snapd/criu"] if lab.criu else []))
    for program, command in programs.items():
        runs = {tool: [] for tool in by_tool}
        for _ in range(lab.rounds):
            for tool, commands in by_tool.items():
                with lab.place() as place:
                    runs[tool].append(round_trip(commands, command, place))
        rows(program, runs)
