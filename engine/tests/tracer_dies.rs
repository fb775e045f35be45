//! The tracer dies at any moment: by chance, and at every named step. The program must run on, exactly.
//!
//! The tracer is this very test program, run again as `torment`, which freezes, borrows, calls and thaws
//! for ever. The program is `checker/checker.c`, whose fourteen threads check themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use std::collections::BTreeMap;
use std::fs::{File, read_dir, read_to_string};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use engine::error::Error;
use engine::fault;
use engine::inventory::{Pid, Tid};
use engine::remote::{Arg, Batch, Caller};
use engine::tracee::Tree;
use nix::libc;

const TARGET: &str = "TORMENT_TARGET";
const KILLS: u32 = 300;
const CYCLES: u32 = 1000;

fn sleep_ms(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// The checker, running.
struct Checker {
    process: Child,
    directory: tempfile::TempDir,
}

impl Checker {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/checker/checker.c");
        let program = directory.path().join("checker");
        let flags = ["-O1", "-mavx2", "-pthread", "-w", "-o"];
        let mut compiler = Command::new("cc");
        assert!(compiler.args(flags).arg(&program).arg(source).status().unwrap().success());
        let output = |name| File::create(directory.path().join(name)).unwrap();
        let mut command = Command::new(program);
        let process = command.stdout(output("out")).stderr(output("err")).spawn().unwrap();
        sleep_ms(300);
        Self { process, directory }
    }

    fn pid(&self) -> Pid {
        Pid(self.process.id().cast_signed())
    }

    fn threads(&self) -> Vec<Tid> {
        let tasks = read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        tasks
            .map(|task| Tid(task.unwrap().file_name().to_str().unwrap().parse().unwrap()))
            .collect()
    }

    /// Areas, descriptors and children: nothing of ours may be among them afterwards.
    fn possessions(&self) -> (Vec<String>, usize, String) {
        let pid = self.pid();
        let maps = read_to_string(format!("/proc/{pid}/maps")).unwrap();
        // Heaps of threads grow at their own time.
        let ranges = maps.lines().filter(|line| !line.ends_with(' ') && line.contains('/'));
        let anonymous = maps.lines().filter(|line| line.contains(" 00:00 0 ")).count();
        let ranges = ranges.map(str::to_owned).chain([anonymous.to_string()]).collect();
        let children = read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        (ranges, read_dir(format!("/proc/{pid}/fd")).unwrap().count(), children)
    }

    /// What each thread blocks for good. Once in three whole runs a single look used to differ: glibc
    /// blocks everything for the length of a `pthread_kill(3)`. What a loan leaves behind stays.
    fn masks(&self) -> BTreeMap<Tid, u64> {
        let mask = |tid: &Tid| {
            let status = read_to_string(format!("/proc/{}/task/{tid}/status", self.pid())).unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
            u64::from_str_radix(mask.trim(), 16).unwrap()
        };
        let mut blocked: BTreeMap<_, _> =
            self.threads().into_iter().map(|tid| (tid, u64::MAX)).collect();
        for _ in 0..20 {
            blocked.iter_mut().for_each(|(tid, always)| *always &= mask(tid));
            sleep_ms(3);
        }
        blocked
    }

    /// Lets it run undisturbed for two of its seconds, then asks what it saw.
    fn verify(&mut self, no_eintr: bool) {
        sleep_ms(2300);
        assert!(self.process.try_wait().unwrap().is_none(), "the program has died");
        let told = |name| read_to_string(self.directory.path().join(name)).unwrap();
        let (out, err) = (told("out"), told("err"));
        let last = out.lines().last().unwrap();
        assert!(last.contains("errors=0 ") && last.ends_with("stalled=0"), "{last}\n{err}");
        assert!(!no_eintr || last.contains("eintr=0 "), "{last}");
        let status = read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        assert!(status.contains("TracerPid:\t0\n"), "somebody still traces it");
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.process.kill().and_then(|()| self.process.wait().map(drop)).unwrap_or_default();
    }
}

/// One checkpoint's worth of disturbance of every thread.
fn disturb(pid: Pid, whom: impl Fn(usize) -> bool) -> Result<(), Error> {
    let mut tree = Tree::freeze(&[pid], Duration::from_secs(30))?;
    let threads: Vec<_> =
        tree.members().values().flat_map(|member| member.threads.clone()).collect();
    for tid in threads.iter().enumerate().filter(|(index, _)| whom(*index)).map(|(_, tid)| *tid) {
        let mut loan = tree.borrow(tid)?;
        let mut batch = Batch::default();
        for _ in 0..20 {
            batch.call("getitimer", libc::SYS_getitimer, [0.into(), Arg::Out(32)]);
            batch.call("sigaltstack", libc::SYS_sigaltstack, [0.into(), Arg::Out(24)]);
        }
        let replies = loan.perform(&batch)?;
        assert!(replies.iter().all(|reply| reply.value().is_ok()));
        loan.finish()?;
        tree.thread(tid)?;
    }
    let twin = tree.twin(pid)?.expect("there is room for one more process");
    drop(tree.userfaultfd(pid)?.expect("a kernel since 6.7"));
    tree.thaw()?;
    assert_eq!(read_dir(format!("/proc/{}/fd", twin.pid())).unwrap().count(), 0);
    drop(twin);
    Ok(())
}

/// Not a test: the tracer that the tests kill.
#[test]
#[ignore = "run by the other tests of this file"]
fn torment() {
    let Ok(target) = std::env::var(TARGET) else { return };
    let pid = Pid(target.parse().unwrap());
    fault::arm_from_environment();
    let mut turn = std::process::id() as usize;
    loop {
        turn = turn.wrapping_mul(1_103_515_245).wrapping_add(12345);
        disturb(pid, |index| (index + turn / 65536).is_multiple_of(4)).unwrap();
        std::thread::sleep(Duration::from_micros((turn / 65536 % 1000) as u64));
    }
}

fn tracer(target: Pid, point: Option<&str>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "torment", "--ignored", "--nocapture"]);
    command.env(TARGET, target.to_string()).stdout(Stdio::null()).stderr(Stdio::piped());
    if let Some(point) = point {
        command.env(fault::VARIABLE, point);
    }
    command.spawn().unwrap()
}

/// Waits for a tracer that died by SIGKILL; one that ended otherwise has found a fault.
fn bury(tracer: Child) {
    use std::os::unix::process::ExitStatusExt;
    let ended = tracer.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.signal(), Some(libc::SIGKILL), "{said}");
}

#[test]
fn killed_at_random_moments() {
    let mut checker = Checker::start();
    let (before, masks) = (checker.possessions(), checker.masks());
    for kill in 0..KILLS {
        let mut tracer = tracer(checker.pid(), None);
        std::thread::sleep(Duration::from_micros(u64::from(kill * 7919 % 20_000 + 2000)));
        tracer.kill().unwrap();
        bury(tracer);
        sleep_ms(u64::from(kill % 3));
    }
    checker.verify(false);
    assert_eq!((checker.possessions(), checker.masks()), (before, masks));
}

#[test]
fn killed_at_every_named_step() {
    let mut checker = Checker::start();
    let (before, masks) = (checker.possessions(), checker.masks());
    for point in fault::REMOTE.iter().chain(fault::TWIN).chain(fault::TRACKER) {
        for passing in [1, 2, 5] {
            bury(tracer(checker.pid(), Some(&format!("{point}:{passing}"))));
        }
    }
    checker.verify(false);
    assert_eq!((checker.possessions(), checker.masks()), (before, masks));
}

#[test]
fn a_thousand_cycles_leave_no_trace() {
    let mut checker = Checker::start();
    // The program itself touches new pages of its libraries for a while.
    for _ in 0..100 {
        disturb(checker.pid(), |_| true).unwrap();
    }
    let (before, masks) = (checker.possessions(), checker.masks());
    // Not statm, which is kept per processor and may be off by some dozen pages.
    let resident = || {
        let rollup = read_to_string(format!("/proc/{}/smaps_rollup", checker.pid())).unwrap();
        let line = rollup.lines().find(|line| line.starts_with("Rss:")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 4
    };
    let resident_before = resident();
    for cycle in 0..CYCLES as usize {
        disturb(checker.pid(), |index| (index + cycle).is_multiple_of(3)).unwrap();
        std::thread::sleep(Duration::from_micros(200));
    }
    assert!(resident() <= resident_before + 16, "{} pages more", resident() - resident_before);
    checker.verify(true);
    assert_eq!((checker.possessions(), checker.masks()), (before, masks));
}

/// Where a program hardly ever gets a processor, its thread was stopped anew before it had taken a step out of
/// the cave, and again whenever its turn came: the next freeze gave up.
#[test]
fn who_leaves_an_old_cave_is_given_the_time() {
    let start = |command: &str| Command::new("sh").args(["-c", command]).spawn().unwrap();
    let mut walker = start("exec chrt -i 0 taskset -c 0 sleep 1000");
    let mut busy = start("exec taskset -c 0 sh -c 'while :; do :; done'");
    sleep_ms(300);
    let pid = Pid(walker.id().cast_signed());
    bury(tracer(pid, Some("remote:area-mapped")));
    let turns = || {
        let told = read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
        told.split_ascii_whitespace().nth(2).unwrap().parse::<u32>().unwrap()
    };
    let before = turns();
    let frozen = Tree::freeze(&[pid], Duration::from_secs(3)).map(Tree::thaw);
    let taken = turns() - before;
    busy.kill().and_then(|()| busy.wait()).unwrap();
    let alive = walker.try_wait().unwrap().is_none();
    walker.kill().and_then(|()| walker.wait()).unwrap();
    assert!(matches!(frozen, Ok(Ok(()))) && alive, "{frozen:?}");
    assert!(taken <= 5, "{taken} turns until it was home");
}

/// Go's runtime catches every signal it can, so none can end a batch: the tracer follows system calls.
#[test]
fn a_go_program_survives_too() {
    let directory = tempfile::tempdir().unwrap();
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/checker/checker.go");
    let program = directory.path().join("checker");
    let mut compiler = Command::new("go");
    compiler.arg("build").arg("-o").arg(&program).arg(source);
    compiler.env("GO111MODULE", "off").env("GOCACHE", directory.path().join("cache"));
    assert!(compiler.status().unwrap().success());
    let told = directory.path().join("out");
    let mut command = Command::new(&program);
    let mut process = command.stdout(File::create(&told).unwrap()).spawn().unwrap();
    let pid = Pid(process.id().cast_signed());
    sleep_ms(300);
    for kill in 0..u64::from(KILLS) / 3 {
        let mut tracer = tracer(pid, None);
        std::thread::sleep(Duration::from_micros(kill * 7919 % 20_000 + 2000));
        tracer.kill().unwrap();
        bury(tracer);
    }
    for point in fault::REMOTE.iter().chain(fault::TWIN).chain(fault::TRACKER) {
        bury(tracer(pid, Some(&format!("{point}:2"))));
    }
    let lines = || read_to_string(&told).unwrap().lines().count();
    let before = lines();
    sleep_ms(2500);
    assert!(process.try_wait().unwrap().is_none() && lines() > before);
    process.kill().unwrap();
    process.wait().unwrap();
}
