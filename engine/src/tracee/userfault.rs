//! A userfaultfd of a process's address space, for tracking what it writes.
//!
//! It speaks of the memory of whoever makes it. A helper ([`super::helper`]) does, with descriptors of its own,
//! so that none is ever opened in the program, whoever dies when.
use std::os::fd::{AsFd, OwnedFd, RawFd};

use nix::libc::{self, O_CLOEXEC, O_NONBLOCK};

use super::Tree;
use super::freeze::alive;
use super::helper::{self, HELPER, call, end, next, number};
use super::loan::Loan;
use crate::arch::RegisterFile;
use crate::error::{Result, kernel};
use crate::fault;
use crate::inventory::{Pid, Tid};
use crate::sys::wait::Change;
use crate::sys::{pidfd, ptrace, userfaultfd};

/// The kernel tells the entry and the exit of its first call.
const MADE: u32 = 2;

impl Tree {
    /// Makes one. `None`: the kernel is older than 6.7, or does not let this process have one.
    #[tracing::instrument(level = "trace", skip_all)]
    pub fn userfaultfd(&mut self, pid: Pid) -> Result<Option<OwnedFd>> {
        let mut loan = self.borrow(Tid(pid.0))?;
        let made = loan.userfaultfd();
        loan.finish()?;
        Ok(made?.filter(|fd| userfaultfd::agree(fd.as_fd(), userfaultfd::TRACKING).is_ok()))
    }
}

impl Loan<'_> {
    fn userfaultfd(&mut self) -> Result<Option<OwnedFd>> {
        let how = userfaultfd::USER_MODE_ONLY | number(O_CLOEXEC | O_NONBLOCK);
        let make = call(libc::SYS_userfaultfd, &[how]);
        let requests = helper::requests(self.area(), 0, &[(HELPER, &[make, end()])]);
        self.request(&requests, helper::COUNT)?;
        let mut made = None;
        self.run_and_see(&mut |helper| {
            made = attend(helper)?;
            Ok(())
        })?;
        Ok(made)
    }
}

/// Takes from a helper what it makes, and sees it to its end.
fn attend(helper: Tid) -> Result<Option<OwnedFd>> {
    fault::point("userfaultfd:helper-born");
    let (mut made, mut seen) = (None, 0);
    loop {
        match next(helper)? {
            Change::Gone(_) => return Ok(made),
            Change::Syscall => {
                seen += 1;
                if seen == MADE {
                    made = taken(helper)?;
                    fault::point("userfaultfd:taken");
                }
            }
            _ => {}
        }
        if seen < MADE {
            alive(ptrace::resume_to_syscall(helper.0))?;
        } else {
            alive(ptrace::resume(helper.0, 0))?;
        }
    }
}

/// A duplicate of what a call has just opened, if it has.
fn taken(helper: Tid) -> Result<Option<OwnedFd>> {
    let registers = ptrace::registers(helper.0).map_err(kernel("ptrace(PTRACE_GETREGSET)"))?;
    let Ok(fd @ 0..) = RawFd::try_from(RegisterFile(registers).answer()) else { return Ok(None) };
    let process = pidfd::open(Pid(helper.0)).map_err(kernel("pidfd_open"))?;
    pidfd::take(process.as_fd(), fd).map(Some).map_err(kernel("pidfd_getfd"))
}
