//! A twin: a copy-on-write image of a process's memory, which stands still while the process runs on.
//!
//! A borrowed thread has a helper ([`super::helper`]) that forks the twin, and ends. So the twin is no child of
//! the program's: wait(2) never tells of it, nor SIGCHLD, and no zombie is left with the program, whoever
//! dies when. If we vanish, it ends by itself as the helper does.
//!
//! The twin has let go of all descriptors before it stands, for it must not keep a pipe open or a lock; and
//! it has left its group and session, whose numbers a restore may want before whoever inherits the twin has
//! reaped it. It is held on its way out of `close_range(2)`; behind that there is nothing but its end.
use nix::libc;
use nix::sys::signal::{Signal, kill};

use super::Tree;
use super::freeze::alive;
use super::helper::{self, HELPER, call, clone, end, next};
use super::loan::Loan;
use crate::arch::RegisterFile;
use crate::error::{Result, kernel};
use crate::fault;
use crate::inventory::{Pid, Tid};
use crate::sys::ptrace::{self, event};
use crate::sys::wait::{self, Change};

/// `include/uapi/linux/close_range.h`, since 5.9: tables that are shared are unshared first.
const CLOSE_RANGE_UNSHARE: u64 = 1 << 1;
/// Where in the area the twin finds what it has to do.
const TWIN: u64 = 512;
/// The kernel tells the entry and the exit of its two calls.
const ON_ITS_WAY_OUT: u32 = 4;

/// Holds the memory of a process as it was. Dropping it ends it.
#[derive(Debug)]
pub struct Twin(Pid);

impl Twin {
    /// Whose memory to read.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.0
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        // If it is gone already, somebody else has killed it.
        if kill(nix::unistd::Pid::from_raw(self.0.0), Signal::SIGKILL).is_ok() {
            while !matches!(wait::wait(self.0.0), Ok(Change::Gone(_)) | Err(_)) {}
        }
    }
}

impl Tree {
    /// Makes a twin of a process. `None`: its limits, its control group or the kernel's memory do not
    /// allow one more process.
    #[tracing::instrument(level = "trace", skip_all)]
    pub fn twin(&mut self, pid: Pid) -> Result<Option<Twin>> {
        let mut loan = self.borrow(Tid(pid.0))?;
        let twin = loan.twin();
        loan.finish()?;
        twin
    }
}

impl Loan<'_> {
    fn twin(&mut self) -> Result<Option<Twin>> {
        self.request(&requests(self.area()), helper::COUNT)?;
        let mut twin = None;
        self.run_and_see(&mut |helper| {
            twin = attend(helper)?;
            Ok(())
        })?;
        fault::point("twin:stands");
        Ok(twin)
    }
}

/// What thread, helper and twin have to do.
fn requests(area: u64) -> Vec<u8> {
    let (twin, leave) = (clone(libc::CLONE_FILES, area, TWIN), call(libc::SYS_setsid, &[]));
    let close = call(libc::SYS_close_range, &[0, u64::from(u32::MAX), CLOSE_RANGE_UNSHARE]);
    let lists = [(HELPER, &[twin, end()][..]), (TWIN, &[leave, close, end()])];
    helper::requests(area, libc::CLONE_FILES, &lists)
}

/// Sees a helper to its end, and its twin to where it stands.
fn attend(helper: Tid) -> Result<Option<Twin>> {
    fault::point("twin:helper-born");
    let mut twin = None;
    loop {
        match next(helper)? {
            Change::Gone(_) => break,
            Change::Event(event::CLONE, _) => {
                let born = ptrace::event_message(helper.0).map_err(kernel("ptrace"))?;
                twin = i32::try_from(born).ok().map(|pid| Twin(Pid(pid)));
                fault::point("twin:born");
            }
            _ => {}
        }
        alive(ptrace::resume(helper.0, 0))?;
    }
    match twin {
        Some(twin) => hold(twin),
        None => Ok(None),
    }
}

/// Has a twin close its descriptors, and holds it there.
fn hold(twin: Twin) -> Result<Option<Twin>> {
    let mut seen = 0;
    while seen < ON_ITS_WAY_OUT {
        match next(Tid(twin.0.0))? {
            Change::Gone(_) => return Ok(None),
            Change::Syscall => seen += 1,
            _ => {}
        }
        if seen < ON_ITS_WAY_OUT {
            alive(ptrace::resume_to_syscall(twin.0.0))?;
        }
    }
    let registers = ptrace::registers(twin.0.0).map_err(kernel("ptrace(PTRACE_GETREGSET)"))?;
    let closed = RegisterFile(registers).answer() == 0;
    Ok(closed.then_some(twin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::area::{Control, Request};
    use crate::tracee::helper::tests::words;

    #[test]
    fn helper_and_twin_have_lists_of_their_own_that_end_with_their_end() {
        let area = 0x10_0000;
        let bytes = requests(area);
        for (block, calls) in [(HELPER, 2), (TWIN, 3)] {
            let at = usize::try_from(block).unwrap() - Control::REQUESTS;
            let words = words(&bytes[at..]);
            assert_eq!(words[0], calls as u64);
            let last = Control::REQUESTS / 8 + (calls - 1) * Request::BYTES / 8;
            assert_eq!(words[last], libc::SYS_exit_group.cast_unsigned());
        }
    }
}
