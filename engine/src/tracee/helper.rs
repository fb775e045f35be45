//! A helper: a process of ours for a moment, that shares the memory of a borrowed thread's.
//!
//! What is made by it leaves no trace in the program: wait(2) never tells of it, nor SIGCHLD, and what it
//! opens, it closes by ending. All that it has to do lies in the loan's area when it is born: if we vanish,
//! it does that and ends, the thread waits for it, and goes home.
use nix::errno::Errno;
use nix::libc;

use crate::error::{Error, Result, kernel};
use crate::inventory::{Pid, Tid};
use crate::remote::area::{Control, Request, flag};
use crate::sys::wait::{self, Change};

/// Where in the area the helper finds what it has to do.
pub(super) const HELPER: u64 = 256;

/// A call that makes a new task, which goes on with the requests at `block` of the area.
pub(super) fn clone(flags: i32, area: u64, block: u64) -> Request {
    let born = call(libc::SYS_clone, &[number(flags)]);
    Request { flags: flag::CHILD, child: area + block, ..born }
}

pub(super) fn call(number: i64, args: &[u64]) -> Request {
    let mut request = Request { number, ..Request::default() };
    request.args.iter_mut().zip(args).for_each(|(place, arg)| *place = *arg);
    request
}

pub(super) fn number(flags: i32) -> u64 {
    flags.unsigned_abs().into()
}

/// How many requests the thread itself has.
pub(super) const COUNT: usize = 2;

/// What a thread has to do that has a helper, as it lies in an area at `area`, behind the count: it clones the
/// helper with these flags besides `CLONE_VM`, and waits for it. Then the lists of the helper and of others,
/// each at its block.
pub(super) fn requests(area: u64, flags: i32, lists: &[(u64, &[Request])]) -> Vec<u8> {
    let first = area + Control::REQUESTS as u64;
    let waited = first + (Request::BYTES + Request::ARGS + 8) as u64;
    let helper = Request { store: waited, ..clone(libc::CLONE_VM | flags, area, HELPER) };
    // By waitid(2), to which the number of a helper that could not be born means nothing.
    let how = number(libc::WEXITED | libc::__WALL);
    let wait = call(libc::SYS_waitid, &[u64::from(libc::P_PID), 0, 0, how]);
    let mut bytes = Vec::new();
    for (at, calls) in [(0, &[helper, wait][..])].iter().chain(lists) {
        bytes.resize(usize::try_from(*at).unwrap_or(0), 0);
        bytes.extend((calls.len() as u64).to_ne_bytes());
        bytes.resize(bytes.len().next_multiple_of(Control::REQUESTS), 0);
        bytes.extend(calls.iter().flat_map(Request::encode));
    }
    bytes.split_off(Control::REQUESTS)
}

/// The last of each list.
pub(super) fn end() -> Request {
    call(libc::SYS_exit_group, &[])
}

/// What one of ours has done.
pub(super) fn next(tid: Tid) -> Result<Change> {
    match wait::wait(tid.0) {
        Err(Errno::ECHILD | Errno::ESRCH) => Err(Error::Died(Pid(tid.0))),
        change => change.map_err(kernel("waitpid")),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn words(bytes: &[u8]) -> Vec<u64> {
        bytes.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word)).collect()
    }

    #[test]
    fn a_helper_that_could_not_be_born_is_not_waited_for() {
        let area = 0x10_0000;
        let words = words(&requests(area, 0, &[(HELPER, &[end()])]));
        let store = words[Request::STORE / 8];
        // What the clone answers is the id that waitid(2) is given, which refuses a negative one.
        let place = store - area - Control::REQUESTS as u64;
        assert_eq!(usize::try_from(place), Ok(Request::BYTES + Request::ARGS + 8));
        let wait = Request::BYTES / 8;
        assert_eq!(words[wait], libc::SYS_waitid.cast_unsigned());
        assert_eq!(words[wait + 1], u64::from(libc::P_PID));
    }
}
