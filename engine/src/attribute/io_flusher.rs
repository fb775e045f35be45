//! `PR_SET_IO_FLUSHER`: a thread that takes part in writing out what memory is freed by, for which the kernel
//! must not wait while it needs memory itself.
//!
//! Asking for it takes `CAP_SYS_RESOURCE`, as setting it does, and whoever set it may have given that up since:
//! then the flags of its stat file tell (`kernel/sys.c`, since 5.6).
use nix::errno::Errno;
use nix::libc::SYS_prctl;

use super::{Attribute, Fact, Lacking, Owner, Scope, Seen, Told, only};
use crate::error::{Cause, Error, Obstacle, Result};
use crate::features::has_capability;
use crate::plan::Stage;
use crate::procfs::stat::Stat;
use crate::remote::{Batch, Reply};

pub(super) struct IoFlusher;

/// `include/uapi/linux/prctl.h`, since 5.6.
const PR_SET_IO_FLUSHER: i64 = 57;
const PR_GET_IO_FLUSHER: i64 = 58;
/// `include/uapi/linux/capability.h`.
const CAP_SYS_RESOURCE: u32 = 24;

const NOT_ALLOWED: Cause = Cause {
    code: "io_flusher:not-allowed",
    reason: "it writes out what memory is freed by (PR_SET_IO_FLUSHER), and only CAP_SYS_RESOURCE may say so",
    remedy: "run snapd as root, with all capabilities",
};

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    #[prost(bool, tag = "1")]
    flushes: bool,
}

impl Attribute for IoFlusher {
    const NAME: &'static str = "io_flusher";
    const SCOPE: Scope = Scope::Thread;
    const TOLD: Told = Told::AsLeader(&[Fact::Flags]);
    const STAGE: Stage = Stage::Threads;
    const CAUSES: &'static [Cause] = &[NOT_ALLOWED];
    type State = State;

    fn ask(_: Owner, batch: &mut Batch) -> Result<()> {
        batch.call("prctl", SYS_prctl, [PR_GET_IO_FLUSHER.into()]);
        Ok(())
    }

    fn answer(seen: &mut Seen<'_, '_>, replies: &[Reply]) -> Result<State> {
        let stat = || Ok(seen.owner.read("stat")?.unwrap_or_default());
        Ok(State { flushes: flushes(only(replies)?, stat)? })
    }

    fn restore(state: &State, batch: &mut Batch) {
        if state.flushes {
            batch.call("prctl", SYS_prctl, [PR_SET_IO_FLUSHER.into(), 1.into()]);
        }
    }

    fn lacks(state: &State, owner: Owner, found: &mut Lacking) -> Result<()> {
        if state.flushes && !has_capability(CAP_SYS_RESOURCE) {
            let object = format!("thread {}", owner.tid());
            found.obstacles.push(Obstacle { pid: Some(owner.pid()), object, cause: NOT_ALLOWED });
        }
        Ok(())
    }
}

fn flushes(reply: &Reply, stat: impl FnOnce() -> Result<String>) -> Result<bool> {
    match reply.value() {
        Ok(value) => Ok(value == 1),
        Err(Error::Kernel(_, Errno::EPERM)) => Stat::parse(&stat()?)?.is_io_flusher(),
        Err(Error::Kernel(_, Errno::EINVAL)) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Pid, Tid};

    fn told(result: i64, flags: u64) -> bool {
        let reply = Reply { call: "prctl", result, out: Vec::new() };
        flushes(&reply, || Ok(format!("7 (x) S 1 7 7 0 -1 {flags} 0\n"))).unwrap()
    }

    #[test]
    fn who_may_not_be_asked_is_told_by_its_flags() {
        let eperm = -i64::from(nix::libc::EPERM);
        assert!(told(1, 0) && told(eperm, 0x40 | 0x18_0000));
        // Half of it is another thing.
        assert!(!told(0, 0x18_0000) && !told(eperm, 0x40) && !told(eperm, 0x08_0000));
        assert!(!told(-i64::from(nix::libc::EINVAL), 0x18_0000), "no kernel that knows it");
    }

    #[test]
    fn who_may_not_set_it_says_so_before() {
        let (mut found, state) = (Lacking::default(), State { flushes: true });
        IoFlusher::lacks(&state, Owner::Thread(Pid(7), Tid(8)), &mut found).unwrap();
        assert_eq!(found.obstacles.is_empty(), has_capability(CAP_SYS_RESOURCE));
    }
}
