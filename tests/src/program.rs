//! Programs under test: started, looked at, told to check themselves, waited for.
//!
//! A program's identity is its PID, which a restore gives back: so one `Program` stays valid from
//! dump to undump. Its output goes to a file in the trial's folder. As process 1 of its namespace,
//! the test is the parent of what it started and of what an undump detached.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::eventually;

/// How long a program may take to get ready, or to check itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It exited with this status.
    Status(i32),
    /// This signal killed it.
    Signal(i32),
}

/// A program that a trial runs.
#[derive(Debug)]
pub struct Program {
    pid: Pid,
    output: PathBuf,
}

impl Program {
    #[expect(clippy::zombie_processes, reason = "waited for by PID: see `ending`")]
    pub(crate) fn start<S: AsRef<str>>(folder: &Path, command: &[S]) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let output = folder.join(format!("program{number}.out"));
        // Appending, so that an undump's rollback of this file and the test's reading agree.
        let out = File::options().create(true).append(true).open(&output).expect("output");
        let err = out.try_clone().expect("a second descriptor");
        let command: Vec<&str> = command.iter().map(AsRef::as_ref).collect();
        let child = Command::new("setsid")
            .args(&command)
            .current_dir(folder)
            .env_clear()
            .envs([
                ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
                ("HOME", "/root"),
                ("LANG", "C.UTF-8"),
            ])
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn();
        let child = child.expect("setsid(1) of util-linux");
        Self { pid: pid(child.id()), output }
    }

    /// A program that something else started; its output is in `output`.
    pub fn adopt(pid: i32, output: PathBuf) -> Self {
        Self { pid: Pid::from_raw(pid), output }
    }

    /// Its PID in the trial's namespace.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Everything it wrote so far.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// The file that its output goes to.
    pub fn output_path(&self) -> &Path {
        &self.output
    }

    /// Waits until a line of its output is `line`.
    #[track_caller]
    pub fn wait_for(&self, line: &str) {
        let start = Instant::now();
        while !self.output().lines().any(|one| one == line) {
            assert!(self.is_alive(), "ended before it said {line}:\n{}", self.output());
            assert!(start.elapsed() < PATIENCE, "never said {line}:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether it exists and is no zombie.
    pub fn is_alive(&self) -> bool {
        state(self.pid()).is_some_and(|state| state != 'Z' && state != 'X')
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill(self.pid, signal).unwrap_or_else(|errno| panic!("{signal} to {}: {errno}", self.pid));
    }

    /// Tells it to check itself (TERM), and expects that it says OK and exits with 0.
    #[track_caller]
    pub fn check(&self) {
        assert!(self.is_alive(), "gone before it was checked:\n{}", self.output());
        self.signal(Signal::SIGTERM);
        let ending = self.ending();
        let output = self.output();
        assert!(
            ending == Ending::Status(0) && output.lines().last() == Some("OK"),
            "{ending:?}, and it said:\n{output}"
        );
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        self.ending();
    }

    /// Waits for its end.
    #[track_caller]
    pub fn ending(&self) -> Ending {
        self.ending_within(PATIENCE)
    }

    /// Waits for its end, for a limited time.
    #[track_caller]
    pub fn ending_within(&self, limit: Duration) -> Ending {
        let mut ending = None;
        eventually(&format!("the end of {}", self.pid), limit, || {
            ending = match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, status)) => Some(Ending::Status(status)),
                Ok(WaitStatus::Signaled(_, signal, _)) => Some(Ending::Signal(signal as i32)),
                Ok(_) => None,
                Err(errno) => panic!("waiting for {}: {errno}", self.pid),
            };
            ending.is_some()
        });
        ending.expect("the condition held")
    }
}

/// Reaps orphans that ended: they were children of programs, and their PIDs have to be free before
/// an undump. The tree of a killed program is given a moment to be gone.
pub(crate) fn reap_strangers() {
    eventually("the end of what was killed", Duration::from_secs(10), || {
        let mut dying = false;
        for pid in children(1) {
            match state(pid) {
                Some('Z' | 'X') => {
                    let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
                    dying = true;
                }
                _ => dying |= has_pending_kill(pid),
            }
        }
        !dying
    });
}

fn has_pending_kill(pid: i32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    status
        .lines()
        .filter_map(|line| line.strip_prefix("ShdPnd:"))
        .any(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & (1 << 8) != 0))
}

/// Every process of this namespace but process 1, whose state is not that of a zombie.
pub(crate) fn everybody() -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("the trial's own /proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != 1 && state(*pid).is_some_and(|state| !matches!(state, 'Z' | 'X')))
        .collect()
}

/// The children of a process, whichever thread started them.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists =
        tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let mut pids: Vec<i32> = lists
        .flat_map(|list| {
            list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
        })
        .collect();
    pids.sort_unstable();
    pids
}

/// The state letter of a process.
pub(crate) fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// For a trial that failed: what all its programs said.
pub(crate) fn print_all_output(folder: &Path) {
    let Ok(files) = fs::read_dir(folder) else { return };
    let mut stderr = std::io::stderr().lock();
    for file in files.flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        if name.starts_with("program") {
            let said = fs::read_to_string(file.path()).unwrap_or_default();
            let tail: Vec<&str> = said.lines().rev().take(20).collect();
            let _ = writeln!(stderr, "-- {name} ends with:");
            for line in tail.iter().rev() {
                let _ = writeln!(stderr, "   {line}");
            }
        }
    }
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).expect("PIDs are positive"))
}
