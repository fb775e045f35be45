//! Running a borrowed thread from one stop to the next.
use nix::errno::Errno;
use nix::libc;

use super::freeze::alive;
use crate::arch::RegisterFile;
use crate::error::{Error, Result};
use crate::inventory::{Pid, Tid};
use crate::sys::ptrace::{self, event};
use crate::sys::wait::{self, Change};

/// `SI_TKILL` of `include/uapi/asm-generic/siginfo.h`: sent by tgkill(2).
const SI_TKILL: i32 = -6;

/// What becomes of those that a borrowed thread clones.
pub(super) type Born<'a> = &'a mut dyn FnMut(Tid) -> Result<()>;

/// A thread that stands, and how its batches end.
#[derive(Debug)]
pub(super) struct Stopped {
    pub(super) pid: Pid,
    pub(super) tid: Tid,
    /// The other threads of its process: while they are not reaped, the end of a leader is not told.
    pub(super) siblings: Vec<Tid>,
    /// The signal that ends a batch. `None`: the program catches all, so we follow system calls.
    pub(super) marker: Option<i32>,
}

impl Stopped {
    /// The signals that it blocks while it works for us.
    pub(super) fn blocked(&self) -> u64 {
        !self.marker.map_or(0, |signal| 1 << (signal - 1))
    }

    /// Runs it until it tells; `told` is where it is then, if we follow system calls. Whom it clones on
    /// the way is shown to `born`, while the thread goes on.
    pub(super) fn run(&self, told: u64, born: Born<'_>) -> Result<RegisterFile> {
        self.resume(0)?;
        loop {
            match self.wait()? {
                Change::Signal(signal) if Some(signal) == self.marker => {
                    if self.sent_by_itself()? {
                        return self.registers();
                    }
                    // A stranger's, which the program ignores: nothing is lost.
                    self.resume(0)?;
                }
                // SIGSTOP cannot be blocked: the stop is the group's, and outlasts the loan.
                Change::Signal(libc::SIGSTOP) => self.resume(libc::SIGSTOP)?,
                Change::Signal(signal) => {
                    let at = self.registers()?.instruction();
                    tracing::error!(signal, at, told, "a borrowed thread has failed");
                    return Err(Error::Kernel("borrowing a thread", Errno::EFAULT));
                }
                Change::Syscall => {
                    let registers = self.registers()?;
                    if registers.instruction() == told && !registers.is_entry() {
                        return Ok(registers);
                    }
                    self.resume(0)?;
                }
                Change::Event(event::CLONE, _) => {
                    let child = ptrace::event_message(self.tid.0);
                    self.resume(0)?;
                    if let Some(child) = child.ok().and_then(|number| i32::try_from(number).ok()) {
                        born(Tid(child))?;
                    }
                }
                Change::Event(..) => self.resume(0)?,
                Change::Gone(_) => return Err(Error::Died(self.pid)),
            }
        }
    }

    /// Goes from wherever it stands into a stop inside the delivery of signals.
    pub(super) fn into_delivery(&self) -> Result<()> {
        if self.marker.is_some() {
            return Ok(());
        }
        alive(ptrace::interrupt(self.tid.0))?;
        alive(ptrace::resume(self.tid.0, 0))?;
        loop {
            match self.wait()? {
                Change::Event(event::STOP, _) => return Ok(()),
                Change::Gone(_) => return Err(Error::Died(self.pid)),
                Change::Signal(signal) => alive(ptrace::resume(self.tid.0, signal))?,
                _ => alive(ptrace::resume(self.tid.0, 0))?,
            }
        }
    }

    fn resume(&self, deliver: i32) -> Result<()> {
        alive(match self.marker {
            None if deliver == 0 => ptrace::resume_to_syscall(self.tid.0),
            _ => ptrace::resume(self.tid.0, deliver),
        })
    }

    fn registers(&self) -> Result<RegisterFile> {
        match ptrace::registers(self.tid.0) {
            Ok(words) => Ok(RegisterFile(words)),
            Err(Errno::ESRCH) => Err(Error::Died(self.pid)),
            Err(errno) => Err(Error::Kernel("ptrace(PTRACE_GETREGSET)", errno)),
        }
    }

    fn sent_by_itself(&self) -> Result<bool> {
        match ptrace::signal_sender(self.tid.0) {
            Ok((code, sender)) => Ok(code == SI_TKILL && sender == self.pid.0),
            Err(Errno::ESRCH) => Err(Error::Died(self.pid)),
            Err(errno) => Err(Error::Kernel("ptrace(PTRACE_GETSIGINFO)", errno)),
        }
    }

    fn wait(&self) -> Result<Change> {
        let is_leader = self.tid.0 == self.pid.0;
        let change = if is_leader && !self.siblings.is_empty() {
            self.wait_with_siblings()
        } else {
            wait::wait(self.tid.0)
        };
        match change {
            Err(Errno::ECHILD | Errno::ESRCH) => Err(Error::Died(self.pid)),
            change => change.map_err(crate::error::kernel("waitpid")),
        }
    }

    /// A leader's end is told only when all its siblings are reaped: so theirs counts as well.
    fn wait_with_siblings(&self) -> nix::Result<Change> {
        loop {
            let who = wait::wait_for_any()?;
            if let Some(change) = wait::poll(self.tid.0)? {
                return Ok(change);
            }
            if self.siblings.contains(&Tid(who)) {
                if let Ok(Some(gone @ Change::Gone(_))) = wait::poll(who) {
                    return Ok(gone);
                }
            } else {
                std::thread::yield_now(); // A child that somebody else has to reap.
            }
        }
    }
}
