//! Twins: they hold what was, while the program runs on and never hears of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use std::fs::{File, read_to_string};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use engine::inventory::Pid;
use engine::tracee::{Tree, Twin};

/// Counts in memory, and says where. Answers each line with whether wait(2) knows a child, and with
/// how often SIGCHLD came.
const PROGRAM: &str = r#"
import ctypes, mmap, os, select, signal, sys
page = mmap.mmap(-1, 64 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, len(page), 4096): page[at] = 1
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
children = 0
def child(*_):
    global children
    children += 1
signal.signal(signal.SIGCHLD, child)
reader, writer = os.pipe()
print(address, writer, flush=True)
count = 0
while True:
    count += 1
    page[0:8] = page[4096:4104] = count.to_bytes(8, "little")
    if select.select([0], [], [], 0)[0]:
        if sys.stdin.readline() == "close\n":
            os.close(writer)
            print(os.read(reader, 1), flush=True)
            continue
        try: known = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | 0x40000000)
        except ChildProcessError: known = "none"
        print(known, children, flush=True)
"#;

struct Subject(Child, BufReader<std::process::ChildStdout>, u64);

impl Subject {
    fn start() -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", PROGRAM]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let address = line.split(' ').next().unwrap().parse().unwrap();
        Self(child, lines, address)
    }

    fn pid(&self) -> Pid {
        Pid(self.0.id().cast_signed())
    }

    fn ask(&mut self, what: &str) -> String {
        writeln!(self.0.stdin.as_mut().unwrap(), "{what}").unwrap();
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Two counters, which are equal but for an instant.
    fn counters(&self, of: Pid) -> (u64, u64) {
        let memory = File::open(format!("/proc/{of}/mem")).unwrap();
        let at = |place| {
            let mut word = [0; 8];
            memory.read_exact_at(&mut word, place).unwrap();
            u64::from_le_bytes(word)
        };
        (at(self.2), at(self.2 + 4096))
    }

    fn twin(&self) -> Twin {
        let mut tree = Tree::freeze(&[self.pid()], Duration::from_secs(30)).unwrap();
        let twin = tree.twin(self.pid()).unwrap().expect("there is room for one more process");
        tree.thaw().unwrap();
        twin
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait().map(drop)).unwrap_or_default();
    }
}

fn is_there(pid: Pid) -> bool {
    let stat = read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[test]
fn a_twin_holds_what_was_while_the_program_runs_on() {
    let mut subject = Subject::start();
    let twin = subject.twin();
    let held = subject.counters(twin.pid());
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while subject.counters(subject.pid()).0 < held.0 + 1000 {
        assert!(std::time::Instant::now() < deadline, "the program does not run");
    }
    assert_eq!(subject.counters(twin.pid()), held);
    let session = nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(twin.pid().0))).unwrap();
    assert_eq!(session.as_raw(), twin.pid().0, "it holds no number of the program's");
    assert_eq!(subject.ask("children"), "none 0");
    let pid = twin.pid();
    drop(twin);
    assert!(!is_there(pid));
    assert_eq!(subject.ask("children"), "none 0");
}

#[test]
fn a_twin_keeps_no_pipe_open() {
    let mut subject = Subject::start();
    let twin = subject.twin();
    assert_eq!(std::fs::read_dir(format!("/proc/{}/fd", twin.pid())).unwrap().count(), 0);
    assert_eq!(subject.ask("close"), "b''", "the end of the pipe was read");
}

#[test]
fn a_program_that_may_not_have_one_more_process_gets_no_twin() {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "54321", "--clear-groups", "prlimit", "--nproc=1", "sleep", "1000"]);
    let mut child = command.spawn().unwrap();
    let pid = Pid(child.id().cast_signed());
    while !Path::new(&format!("/proc/{pid}/exe")).read_link().unwrap().ends_with("sleep") {
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut tree = Tree::freeze(&[pid], Duration::from_secs(30)).unwrap();
    assert!(tree.twin(pid).unwrap().is_none());
    tree.thaw().unwrap();
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}
