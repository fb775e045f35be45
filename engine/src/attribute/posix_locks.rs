//! POSIX locks (`F_SETLK`): they belong to a process, are not inherited, and go when *any* of its
//! descriptors of the file is closed. So they are taken by their owner, once its table is complete.
//!
//! Kernel: `fs/locks.c` (`show_fd_locks()`). A lock goes with the descriptor it was taken by, so that
//! `/proc/PID/fdinfo` tells of all. `/proc/locks` does too, but waits for RCU: some ten milliseconds.
use std::os::fd::RawFd;

use super::{Attribute, Scope, Seen};
use crate::error::Result;
use crate::lock::{Family, Lock};
use crate::plan::Stage;
use crate::procfs::Fields;
use crate::remote::{Batch, RemoteFd, Reply};

pub(super) struct PosixLocks;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    #[prost(message, repeated, tag = "1")]
    locks: Vec<Held>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Held {
    /// By which descriptor it was taken.
    #[prost(int32, tag = "1")]
    fd: i32,
    #[prost(message, required, tag = "2")]
    lock: Lock,
}

impl State {
    /// What the descriptors of a process tell: by which each was taken.
    pub(super) fn of(held: Vec<(RawFd, Lock)>) -> Self {
        Self { locks: held.into_iter().map(|(fd, lock)| Held { fd, lock }).collect() }
    }
}

/// Those that a descriptor's fdinfo tells of: locks of its process that were taken through it.
pub(super) fn told(info: &str) -> impl Iterator<Item = Lock> {
    let locks = Fields::parse(info).take_all("lock").into_iter().filter_map(Lock::parse);
    locks.filter(|lock| lock.family() == Family::Posix).collect::<Vec<_>>().into_iter()
}

impl Attribute for PosixLocks {
    const NAME: &'static str = "posix_locks";
    const SCOPE: Scope = Scope::Process;
    const STAGE: Stage = Stage::Process;
    type State = State;

    /// Told by descriptors, which are yet to be looked at.
    fn answer(_: &mut Seen<'_, '_>, _: &[Reply]) -> Result<State> {
        Ok(State::default())
    }

    fn restore(state: &State, batch: &mut Batch) {
        for held in &state.locks {
            held.lock.take(RemoteFd(held.fd), batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::Caller;
    use crate::sys::here::Here;
    use std::os::fd::AsRawFd;

    #[test]
    fn they_are_told_by_their_descriptor_and_taken_again() {
        let _alone = crate::lock::tests::alone();
        let file = tempfile::tempfile().unwrap();
        let fd = file.as_raw_fd();
        let lock = Lock::parse("1: POSIX  ADVISORY  WRITE 1 fe:00:1 5 14").unwrap();
        let wanted = State::of(vec![(fd, lock)]);
        let mut batch = Batch::default();
        PosixLocks::restore(&wanted, &mut batch);
        Here.perform(&batch).unwrap()[0].value().unwrap();
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
        assert_eq!(told(&info).collect::<Vec<_>>(), [lock]);
    }
}
