"""How long a program stands still that rewrites a file of 1 GiB all the time, in milliseconds.

It writes 250 pages a second, at random, and a snapshot is taken each second, on the file system of DIR and, where there are
mkfs.xfs and mkfs.btrfs, on one of each that is made in a file there and mounted; snapd's store is on the same one. The peer
is reading the file once, with its pages in memory: the ratio is the pause to that. CRIU does not save what files hold."""
import contextlib, os, shutil, subprocess, time

from . import table
from .program import Supervised

MIB, WRITTEN = 1024, 250


@contextlib.contextmanager
def mounted(lab, kind):
    """A file system of that kind on a file; the mount is gone with our namespace, at the latest."""
    if kind is None:
        yield lab.folder
        return
    with lab.place() as place:
        image, point = os.path.join(place, "image"), os.path.join(place, kind)
        with open(image, "w") as file:
            file.truncate(6 << 30)
        subprocess.run([f"mkfs.{kind}", "-q", image], check=True, stderr=subprocess.DEVNULL)
        os.mkdir(point)
        subprocess.run(["mount", "-o", "loop", image, point], check=True)
        try:
            yield point
        finally:
            subprocess.run(["umount", point], check=True)


def name_of(folder):
    return subprocess.run(["findmnt", "-no", "FSTYPE", "-T", folder], capture_output=True, text=True, check=True).stdout.strip()


def read_ms(path):
    """How long it takes to read a file once."""
    buffer = bytearray(1 << 20)
    start = time.monotonic()
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return (time.monotonic() - start) * 1e3


def measure(lab, folder):
    """Snapshots, and the times of reading the file once, in turn."""
    with lab.place(folder) as place:
        file = os.path.join(place, "database")
        with Supervised(lab, [lab.built("paced.c"), str(MIB), str(WRITTEN), file], place) as program:
            program.checkpoint()
            snapshots, reads = [], []
            for _ in range(lab.rounds):
                start = time.monotonic()
                reads.append(read_ms(file))
                time.sleep(max(0, start + 1 - time.monotonic()))
                snapshots.append(program.checkpoint())
            return snapshots, reads


def run(lab):
    table.head("file system", "pause, ms", "reading it once, ms", "pause/reading", "took, ms", "stored, MiB")
    for kind in (None, "xfs", "btrfs"):
        if kind and not shutil.which(f"mkfs.{kind}"):
            continue
        with mounted(lab, kind) as folder:
            snapshots, reads = measure(lab, folder)
            pauses, took = ([one[what] for one in snapshots] for what in ("pause_ms", "took_ms"))
            stored = [one["stored_bytes"] / (1 << 20) for one in snapshots]
            table.line([name_of(folder), table.cell(pauses), table.cell(reads), table.ratio(pauses, reads), table.cell(took), table.cell(stored)])
