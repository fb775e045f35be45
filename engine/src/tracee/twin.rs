//! A twin: a copy-on-write image of a process's memory, which stands still while the process runs on.
//!
//! A borrowed thread clones a helper that shares its memory; the helper forks the twin, and ends. So
//! the twin is no child of the program's: wait(2) never tells of it, nor SIGCHLD, and no zombie is left
//! with the program, whoever dies when. All of it is asked for at once: if we vanish, the helper and the
//! twin end by themselves, the thread waits for the helper, and goes home.
//!
//! The twin has let go of all descriptors before it stands, for it must not keep a pipe open or a lock; and
//! it has left its group and session, whose numbers a restore may want before whoever inherits the twin has
//! reaped it. It is held on its way out of `close_range(2)`; behind that there is nothing but its end.
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};

use super::Tree;
use super::freeze::alive;
use super::loan::Loan;
use crate::arch::RegisterFile;
use crate::error::{Error, Result, kernel};
use crate::fault;
use crate::inventory::{Pid, Tid};
use crate::remote::area::{Control, Request, flag};
use crate::sys::ptrace::{self, event};
use crate::sys::wait::{self, Change};

/// `include/uapi/linux/close_range.h`, since 5.9: tables that are shared are unshared first.
const CLOSE_RANGE_UNSHARE: u64 = 1 << 1;
/// Where in the area the helper finds what it has to do.
const HELPER: u64 = 256;
/// And the twin.
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
        self.request(&requests(self.area()), 2)?;
        let mut twin = None;
        self.run_and_see(&mut |helper| {
            twin = attend(helper)?;
            Ok(())
        })?;
        fault::point("twin:stands");
        Ok(twin)
    }
}

/// What thread, helper and twin have to do, as it lies in an area at `area`, behind the count.
fn requests(area: u64) -> Vec<u8> {
    let memory = libc::CLONE_VM | libc::CLONE_FILES;
    let born = Request { flags: flag::CHILD, ..call(libc::SYS_clone, &[]) };
    let first = area + Control::REQUESTS as u64;
    let waited = first + (Request::BYTES + Request::ARGS + 8) as u64;
    let helper = Request {
        args: [number(memory), 0, 0, 0, 0, 0],
        child: area + HELPER,
        store: waited,
        ..born
    };
    // By waitid(2), to which the number of a helper that could not be born means nothing.
    let how = number(libc::WEXITED | libc::__WALL);
    let wait = call(libc::SYS_waitid, &[u64::from(libc::P_PID), 0, 0, how]);
    let twin =
        Request { args: [number(libc::CLONE_FILES), 0, 0, 0, 0, 0], child: area + TWIN, ..born };
    let (leave, end) = (call(libc::SYS_setsid, &[]), call(libc::SYS_exit_group, &[]));
    let close = call(libc::SYS_close_range, &[0, u64::from(u32::MAX), CLOSE_RANGE_UNSHARE]);
    let mut bytes = Vec::new();
    let lists = [(0, &[helper, wait][..]), (HELPER, &[twin, end]), (TWIN, &[leave, close, end])];
    for (at, calls) in lists {
        bytes.resize(usize::try_from(at).unwrap_or(0), 0);
        bytes.extend((calls.len() as u64).to_ne_bytes());
        bytes.resize(bytes.len().next_multiple_of(Control::REQUESTS), 0);
        bytes.extend(calls.iter().flat_map(Request::encode));
    }
    bytes.split_off(Control::REQUESTS)
}

fn number(flags: i32) -> u64 {
    flags.unsigned_abs().into()
}

fn call(number: i64, args: &[u64]) -> Request {
    let mut request = Request { number, ..Request::default() };
    request.args.iter_mut().zip(args).for_each(|(place, arg)| *place = *arg);
    request
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

fn next(tid: Tid) -> Result<Change> {
    match wait::wait(tid.0) {
        Err(Errno::ECHILD | Errno::ESRCH) => Err(Error::Died(Pid(tid.0))),
        change => change.map_err(kernel("waitpid")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(bytes: &[u8]) -> Vec<u64> {
        bytes.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word)).collect()
    }

    #[test]
    fn a_helper_that_could_not_be_born_is_not_waited_for() {
        let area = 0x10_0000;
        let words = words(&requests(area));
        let store = words[Request::STORE / 8];
        // What the clone answers is the id that waitid(2) is given, which refuses a negative one.
        let place = store - area - Control::REQUESTS as u64;
        assert_eq!(usize::try_from(place), Ok(Request::BYTES + Request::ARGS + 8));
        let wait = Request::BYTES / 8;
        assert_eq!(words[wait], libc::SYS_waitid.cast_unsigned());
        assert_eq!(words[wait + 1], u64::from(libc::P_PID));
    }

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
