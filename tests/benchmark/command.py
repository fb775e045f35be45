"""The benchmark of the README: snapd measured, side by side with CRIU when one is on PATH.

    tests/bench [THEME...] [--rounds N] [--snapd PATH] [--folder DIR]

Each theme prints a table: medians, in brackets the quartiles; without themes, all of them. Everything is kept in
DIR (the disk that counts; by default where temporary files go), which should have 20 GB free. Where there is no
CRIU, its columns are left out. Run it as root on an idle machine, with an optimised snapd
(`cargo build --release -p cli`)."""
import argparse, os, subprocess, sys, tempfile

from . import busy, database, durable, files, latency, pauses, rate, size, store, threads, whole
from .lab import Lab

THEMES = {"whole": whole, "pauses": pauses, "size": size, "threads": threads, "files": files, "database": database,
          "durable": durable, "store": store, "rate": rate, "busy": busy, "latency": latency}


def heading(name):
    return THEMES[name].__doc__.partition("\n")[0]


def inside(options):
    """As process 1 of namespaces of our own: whatever we start or mount goes when we go."""
    with tempfile.TemporaryDirectory(prefix="snapd-bench-", dir=options.folder) as folder:
        lab = Lab(options.snapd, folder, options.rounds)
        for name in options.themes:
            print(f"\n{name}: {heading(name)}\n")
            THEMES[name].run(lab)


def main(script):
    listed = "\n".join(f"    {name:10}{heading(name)}" for name in THEMES)
    parser = argparse.ArgumentParser(prog="tests/bench", description=f"{__doc__}\n\nThemes:\n{listed}",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("themes", nargs="*", metavar="THEME")
    parser.add_argument("--rounds", metavar="N", type=int, default=9)
    parser.add_argument("--snapd", default=os.environ.get("SNAPD_BIN") or os.path.join(os.path.dirname(script), "../target/release/snapd"))
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.snapd, options.folder = os.path.abspath(options.snapd), os.path.abspath(options.folder)
    if options.inside:
        return inside(options)
    unknown = [name for name in options.themes if name not in THEMES]
    if unknown or options.rounds < 1:
        parser.error(f"no theme: {', '.join(unknown)}" if unknown else "--rounds: at least 1")
    if os.geteuid() or not os.access(options.snapd, os.X_OK):
        parser.error(f"needs root, and snapd at {options.snapd}")
    command = [sys.executable, script, *(options.themes or THEMES), "--inside", "--rounds", str(options.rounds),
               "--snapd", options.snapd, "--folder", options.folder]
    namespaces = ["unshare", "--pid", "--mount", "--ipc", "--fork", "--mount-proc", "--kill-child"]
    sys.exit(subprocess.run([*namespaces, *command]).returncode)
