//! wait(2), for tracees: which of them stopped or ended, and why.
//!
//! Always by number: a wait for any child would take the exits of children that are not ours.
use nix::Result;
use nix::errno::Errno;
use nix::libc;

/// What a tracee did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// A signal is about to be delivered.
    Signal(i32),
    /// `PTRACE_EVENT_*`; with `STOP`, the signal that stops its group, or SIGTRAP.
    Event(i32, i32),
    /// Entry to or exit from a system call.
    Syscall,
    /// It has ended, with this status.
    Gone(i32),
}

/// Takes a status word apart.
fn change(status: i32) -> Change {
    if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
        return Change::Gone(status);
    }
    match (status >> 16, libc::WSTOPSIG(status)) {
        (0, signal) if signal == libc::SIGTRAP | 0x80 => Change::Syscall,
        (0, signal) => Change::Signal(signal),
        (event, signal) => Change::Event(event, signal),
    }
}

fn wait_with(tid: i32, flags: i32) -> Result<Option<Change>> {
    let mut status = 0;
    loop {
        // SAFETY: `status` lives as long as the call, which writes one int to it.
        let found = unsafe { libc::waitpid(tid, &raw mut status, flags | libc::__WALL) };
        match Errno::result(found) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(change(status))),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// What it did, if it did anything. ECHILD: it is gone.
pub(crate) fn poll(tid: i32) -> Result<Option<Change>> {
    wait_with(tid, libc::WNOHANG)
}

/// Waits until it does something.
pub(crate) fn wait(tid: i32) -> Result<Change> {
    wait_with(tid, 0)?.ok_or(Errno::ECHILD)
}

/// Reaps it if it has ended; leaves its stops to its tracer. Looks before it takes: wait(2) tells of
/// the stops of a tracee whatever it is asked for, and whoever is told of one has taken it
/// (`wait_task_stopped` in the kernel's `kernel/exit.c`).
pub(crate) fn reap(tid: i32) {
    let ended = [libc::CLD_EXITED, libc::CLD_KILLED, libc::CLD_DUMPED];
    let flags = libc::WEXITED | libc::WNOHANG | libc::__WALL;
    // Who has ended does nothing else, so the second call finds what the first has seen.
    if told(tid, flags | libc::WNOWAIT).is_some_and(|code| ended.contains(&code)) {
        told(tid, flags);
    }
}

/// What waitid(2) tells of this one, as `si_code`, if anything.
fn told(tid: i32, flags: i32) -> Option<i32> {
    // SAFETY: a siginfo_t is integers and unions of integers and pointers: zeros are valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` lives as long as the call, which fills it.
    let result = unsafe { libc::waitid(libc::P_PID, tid.unsigned_abs(), &raw mut info, flags) };
    // SAFETY: waitid(2) has set si_pid, or left it zero.
    (result == 0 && unsafe { info.si_pid() } != 0).then_some(info.si_code)
}

/// Waits until any child or tracee of this OS thread has something to tell, and takes nothing.
/// Returns whose it is.
pub(crate) fn wait_for_any() -> Result<i32> {
    let flags = libc::WEXITED | libc::WSTOPPED | libc::__WALL | libc::__WNOTHREAD | libc::WNOWAIT;
    loop {
        // SAFETY: a siginfo_t is integers and unions of integers and pointers: zeros are valid.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` lives as long as the call, which fills it.
        let result = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) };
        match Errno::result(result) {
            // SAFETY: waitid(2) has set si_pid.
            Ok(_) => return Ok(unsafe { info.si_pid() }),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;
    use crate::sys::ptrace::{self, event};

    #[test]
    fn status_words_are_taken_apart() {
        assert_eq!(change(0x0b7f), Change::Signal(11));
        assert_eq!(change(0x857f), Change::Syscall);
        assert_eq!(change(0x80_057f), Change::Event(128, 5));
        assert_eq!(change(0x0100), Change::Gone(0x100));
        assert_eq!(change(9), Change::Gone(9));
    }

    #[test]
    fn reaping_leaves_stops_to_the_tracer() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let tid = i32::try_from(child.id()).unwrap();
        ptrace::seize(tid, 0).unwrap();
        ptrace::interrupt(tid).unwrap();
        while !std::fs::read_to_string(format!("/proc/{tid}/stat")).unwrap().contains(" t ") {
            std::thread::sleep(Duration::from_millis(1));
        }
        reap(tid);
        assert_eq!(poll(tid), Ok(Some(Change::Event(event::STOP, libc::SIGTRAP))));

        child.kill().unwrap();
        while !std::fs::read_to_string(format!("/proc/{tid}/stat")).unwrap().contains(" Z ") {
            std::thread::sleep(Duration::from_millis(1));
        }
        reap(tid);
        assert_eq!(child.wait().unwrap_err().raw_os_error(), Some(libc::ECHILD));
    }
}
