"""Where everything is: snapd, CRIU if there is one, and a folder on the disk that counts."""
import contextlib, os, shutil, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
SUBJECTS = os.path.join(HERE, "../subjects")


def until(condition):
    for _ in range(40_000):
        if condition():
            return
        time.sleep(0.003)
    sys.exit("it does not get there")


def sync(folder):
    """Makes files and their names durable; milliseconds."""
    start = time.monotonic()
    for path in [os.path.join(folder, name) for name in os.listdir(folder)] + [folder]:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    return (time.monotonic() - start) * 1e3


def size(folder):
    """What all files of a folder take on the disk, in bytes."""
    return sum(os.lstat(os.path.join(at, name)).st_blocks * 512 for at, _, names in os.walk(folder) for name in names)


def each_second(seconds, action):
    """Does something at the beginning of each second, or late where the one before has taken longer."""
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        action()
        time.sleep(max(0, min(now + 1, end) - time.monotonic()))


class Lab:
    def __init__(self, snapd, folder, rounds):
        self.snapd, self.folder, self.rounds = snapd, folder, rounds
        self.criu = shutil.which("criu")

    @contextlib.contextmanager
    def place(self, folder=None):
        """A folder for a program and what is saved of it; gone afterwards."""
        with tempfile.TemporaryDirectory(dir=folder or self.folder) as place:
            yield place

    def built(self, source):
        """The executable of a C program that is here or one of the subjects."""
        path = os.path.join(self.folder, source.removesuffix(".c"))
        if not os.path.exists(path):
            found = next(at for at in (os.path.join(HERE, source), os.path.join(SUBJECTS, source)) if os.path.exists(at))
            subprocess.run(["gcc", "-O2", "-pthread", "-I", SUBJECTS, "-o", path, found], check=True)
        return path
