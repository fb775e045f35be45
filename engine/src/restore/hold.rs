//! Held blanks: the little of ptrace(2) that a restore needs until their release.
//!
//! `ESRCH` means that the held one has died. A blank blocks every signal that can be blocked; whoever
//! sends it `SIGSTOP` stops it for good, as it would have stopped the program.
use std::time::{Duration, Instant};

use nix::Result;
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill as send_to};
use nix::unistd::Pid;

use crate::procfs::{self, Fields};
use crate::sys::ptrace::{self, option};
use crate::sys::wait::{self, Change};

/// How long job control may take for a signal that the process may ignore after all.
const SOON: Duration = Duration::from_millis(200);

/// With what seccomp allows us: only the privileged may have its filters sleep.
fn with_filters_asleep(options: u64, request: impl Fn(u64) -> Result<()>) -> Result<()> {
    match request(options | option::SUSPEND_SECCOMP) {
        Err(Errno::EPERM | Errno::EINVAL) => request(options),
        other => other,
    }
}

/// Attaches without stopping; it dies with us.
pub(super) fn seize(tid: i32) -> Result<()> {
    with_filters_asleep(option::EXITKILL, |options| ptrace::seize(tid, options))
}

/// From now on it outlives us.
pub(super) fn spare(tid: i32) -> Result<()> {
    with_filters_asleep(0, |options| ptrace::set_options(tid, options))
}

/// Stops a running one, and waits for that.
pub(super) fn stop(tid: i32) -> Result<()> {
    ptrace::interrupt(tid)?;
    loop {
        match wait::wait(tid)? {
            Change::Gone(_) => return Err(Errno::ESRCH),
            Change::Event(..) => return Ok(()),
            Change::Signal(signal) => ptrace::resume(tid, signal)?,
            Change::Syscall => ptrace::resume(tid, 0)?,
        }
    }
}

/// Whether it has ended or stopped by itself: both mean that something went wrong in it. Of an
/// ended one the status is taken.
pub(super) fn lost(tid: i32) -> bool {
    !matches!(wait::poll(tid), Ok(None))
}

/// Stops a running one as job control does, by `signal`: until then it has blocked all. One
/// that it would ignore or handle by now, or that its group must not be stopped by, gives way to
/// `SIGSTOP`.
pub(super) fn halt(pid: i32, signal: i32) -> Result<()> {
    stop(pid)?;
    ptrace::set_mask(pid, !bit(signal))?;
    let default = !has_own_action(pid, signal);
    if default {
        send(pid, signal)?;
    }
    ptrace::resume(pid, 0)?;
    if default && halted(pid, signal, Some(Instant::now() + SOON))? {
        return Ok(());
    }
    send(pid, libc::SIGSTOP)?;
    halted(pid, libc::SIGSTOP, None).map(drop)
}

fn bit(signal: i32) -> u64 {
    1u64.checked_shl((signal - 1).unsigned_abs()).unwrap_or(0)
}

/// Whether it ignores or handles this signal.
fn has_own_action(pid: i32, signal: i32) -> bool {
    let text = procfs::text(format!("/proc/{pid}/status")).unwrap_or_default();
    let mut status = Fields::parse(&text);
    let mut own = |set| status.take_number(set, 16).is_some_and(|set| set & bit(signal) != 0);
    own("SigIgn") || own("SigCgt")
}

fn send(pid: i32, signal: i32) -> Result<()> {
    send_to(Pid::from_raw(pid), Some(Signal::try_from(signal)?))
}

/// Delivers `signal`, and waits for the group stop that comes of it: the tracee stays in it, for its
/// parent to see.
fn halted(pid: i32, signal: i32, end: Option<Instant>) -> Result<bool> {
    loop {
        let change = if end.is_some() { wait::poll(pid)? } else { Some(wait::wait(pid)?) };
        match change {
            Some(Change::Gone(_)) => return Err(Errno::ESRCH),
            Some(Change::Event(..)) => return Ok(true),
            Some(Change::Signal(_)) => ptrace::resume(pid, signal)?,
            None if end.is_some_and(|end| Instant::now() > end) => return Ok(false),
            _ => std::thread::yield_now(),
        }
    }
}

/// Stops a running one as job control does, and has it go on at once. `SIGCONT` waits for it then.
pub(super) fn continue_once(pid: i32) -> Result<()> {
    send(pid, libc::SIGSTOP)?;
    halted(pid, libc::SIGSTOP, None)?;
    send(pid, libc::SIGCONT)?;
    // The stop that we ask for and the one that tells of `SIGCONT` become one: nothing runs before.
    ptrace::interrupt(pid)?;
    ptrace::resume(pid, 0)?;
    halted(pid, 0, None)?;
    ptrace::resume(pid, 0)
}

/// Ends one at once. That it is gone already is as good.
pub(super) fn kill(pid: i32) {
    if let Err(errno) = send(pid, libc::SIGKILL) {
        tracing::debug!(pid, %errno, "cannot be killed");
    }
}

/// Waits until a killed one, held or our child, is gone.
pub(super) fn reap(tid: i32) {
    while !matches!(wait::wait(tid), Ok(Change::Gone(_)) | Err(_)) {}
}

/// Ends a held one of a single thread, and waits until it is gone.
pub(super) fn end(pid: i32) {
    kill(pid);
    reap(pid);
}

/// Waits until somebody else's child has ended.
pub(super) fn until_zombie(pid: i32) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        let text = procfs::text(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = text.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if matches!(state, None | Some('Z' | 'X')) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    Err(Errno::ETIMEDOUT)
}
