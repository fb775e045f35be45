//! POSIX locks (`F_SETLK`): they belong to a process, are not inherited, and go when *any* of its
//! descriptors of the file is closed. So they are taken by their owner, once its table is complete.
//!
//! Kernel: `fs/locks.c`; `/proc/locks` tells who has any, `/proc/PID/fdinfo` which.
use std::fs;

use super::{Attribute, Owner, Scope, Seen};
use crate::error::{Cause, Result, kernel_io};
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

const UNREADABLE: Cause = Cause {
    code: "posix_locks:unreadable",
    reason: "the kernel does not tell through which descriptor it was taken",
    remedy: "unlock it for the checkpoint",
};

impl Attribute for PosixLocks {
    const NAME: &'static str = "posix_locks";
    const SCOPE: Scope = Scope::Process;
    const STAGE: Stage = Stage::Process;
    const CAUSES: &'static [Cause] = &[UNREADABLE];
    type State = State;

    fn answer(seen: &mut Seen<'_, '_>, _: &[Reply]) -> Result<State> {
        let all = fs::read_to_string("/proc/locks").map_err(kernel_io("read"))?;
        let count = all.lines().filter(|line| owned_by(line, seen.owner.pid().0)).count();
        if count == 0 {
            return Ok(State::default());
        }
        let locks = held_by(seen.owner)?;
        if locks.len() != count {
            seen.obstacle("a file lock", &UNREADABLE);
        }
        Ok(State { locks })
    }

    fn restore(state: &State, batch: &mut Batch) {
        for held in &state.locks {
            held.lock.take(RemoteFd(held.fd), batch);
        }
    }
}

/// `2: POSIX  ADVISORY  WRITE 28662 fe:00:10010658 5 14`; who waits has an arrow before the family.
fn owned_by(line: &str, pid: i32) -> bool {
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    matches!(words.as_slice(), [_, "POSIX", _, _, owner, ..] if owner.parse() == Ok(pid))
}

fn held_by(owner: Owner) -> Result<Vec<Held>> {
    let mut held = Vec::new();
    for entry in fs::read_dir(owner.file("fdinfo")).map_err(kernel_io("readdir"))?.flatten() {
        let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let text = fs::read_to_string(entry.path()).map_err(kernel_io("read"))?;
        let locks = Fields::parse(&text).take_all("lock");
        let locks = locks.into_iter().filter_map(Lock::parse);
        let own = locks.filter(|lock| lock.family() == Family::Posix);
        held.extend(own.map(|lock| Held { fd, lock }));
    }
    // The same open file under two numbers tells its locks twice.
    held.sort_by_key(|held| held.fd);
    let mut seen = Vec::new();
    held.retain(|held| {
        let link = fs::read_link(owner.file(&format!("fd/{}", held.fd))).ok();
        let new = !seen.contains(&(link.clone(), held.lock));
        seen.push((link, held.lock));
        new
    });
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Pid;
    use crate::remote::Caller;
    use crate::sys::here::Here;
    use std::os::fd::AsRawFd;

    #[test]
    fn they_are_found_by_owner_and_taken_again() {
        let _alone = crate::lock::tests::alone();
        let file = tempfile::tempfile().unwrap();
        let fd = file.as_raw_fd();
        let lock = Lock::parse("1: POSIX  ADVISORY  WRITE 1 fe:00:1 5 14").unwrap();
        let wanted = State { locks: vec![Held { fd, lock }] };
        let mut batch = Batch::default();
        PosixLocks::restore(&wanted, &mut batch);
        Here.perform(&batch).unwrap()[0].value().unwrap();
        let _twice = file.try_clone().unwrap();
        let owner = Owner::Process(Pid(std::process::id().cast_signed()));
        let (mut status, mut obstacles) = (Fields::parse(""), Vec::new());
        let mut seen = Seen { owner, status: &mut status, obstacles: &mut obstacles };
        let state = PosixLocks::answer(&mut seen, &[]).unwrap();
        assert!(state.locks.contains(&wanted.locks[0]), "{state:?}");
        assert_eq!(state.locks.iter().filter(|held| held.lock == lock).count(), 1);
    }
}
