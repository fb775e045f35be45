"""Programs that are measured, by themselves and under supervision.

They say READY once they have all that they are about to have, and answer USR1 with a line that begins with a word."""
import json, os, shutil, signal, subprocess, sys

from .lab import until


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(") ", 1)[1][0] not in "ZX"
    except OSError:
        return False


def reap(pid):
    """Waits until it is gone. We are process 1 of a PID namespace: every orphan is ours."""
    until(lambda: not alive(pid))
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


class Program:
    """A program that nobody supervises."""

    def __init__(self, command, place):
        self.out = os.path.join(place, "out")
        with open(self.out, "w") as out:
            self.process = self.launch(command, out)
        self.line_of("READY", 0)
        self.pid = self.find_pid()

    def launch(self, command, out):
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)

    def find_pid(self):
        return self.process.pid

    def lines_of(self, word):
        with open(self.out) as out:
            text = out.read()
        return [line for line in text[:text.rfind("\n") + 1].splitlines() if line.startswith(word)]

    def line_of(self, word, number):
        """Waits for the next line that begins with a word, `number` of which there have been."""

        def there():
            if self.process.poll() is not None:
                sys.exit(f"{self.process.args} ended: {open(self.out).read()}")
            return len(self.lines_of(word)) > number

        until(there)
        return self.lines_of(word)[number]

    def ask(self, word):
        """Sends USR1, and waits for the line that answers."""
        number = len(self.lines_of(word))
        os.kill(self.pid, signal.SIGUSR1)
        return self.line_of(word, number)

    def end(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


class Supervised(Program):
    """A program under supervision."""

    def __init__(self, lab, command, place, *options):
        self.state = os.path.join(place, "state")
        self.base = [lab.snapd, "--dir", self.state]
        self.options = options
        super().__init__(command, place)

    def launch(self, command, out):
        run = [*self.base, "run", "--name", "bench", *self.options, "--", *command]
        return subprocess.Popen(run, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def find_pid(self):
        return json.loads(self.tell("ls", "--json"))[0]["pid"]

    def tell(self, *args):
        done = subprocess.run([*self.base, *args], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"snapd {' '.join(args)}: {done.stderr}")
        return done.stdout

    def checkpoint(self):
        """Takes a snapshot, waits until it is durable, and returns what `snapd snapshots` would tell of it."""
        return json.loads(self.tell("checkpoint", "bench", "--json"))

    def snapshots(self):
        return sorted(json.loads(self.tell("snapshots", "bench", "--json")), key=lambda one: one["seq"])

    def settled(self):
        """Waits, where there is a schedule, until some have been taken since it was READY: the first are of a program
        that was still filling its memory. The newest."""
        newest = lambda: max((one["seq"] for one in self.snapshots()), default=0)
        enough = newest() + 4
        until(lambda: newest() >= enough)
        return self.snapshots()[-1]

    def end(self):
        self.tell("kill", "bench")
        self.process.wait()
        shutil.rmtree(self.state)


def whole(snapshot):
    return snapshot["changed_bytes"] == snapshot["memory_bytes"]


def alternately(programs, rounds, before=lambda program: None):
    """Snapshots of several programs in turn, the first of each left out, for that is whole."""
    taken = [[] for _ in programs]
    for program in programs:
        program.checkpoint()
    for _ in range(rounds):
        for program, snapshots in zip(programs, taken):
            before(program)
            snapshots.append(program.checkpoint())
    return taken
