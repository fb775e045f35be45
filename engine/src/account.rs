//! What the account lacks that we run as: told by name, before the kernel says EPERM somewhere.
//!
//! Kernel: capabilities(7). `/proc/PID/map_files` asks for them in the first user namespace
//! (`fs/proc/base.c`), numbers of new processes in that of their PID namespace (`kernel/pid.c`).
use crate::error::{Cause, Error, Obstacle, Result};
use crate::features::{can_open_map_files, has_capability};

const AS_ROOT: &str =
    "run snapd as root, for example with sudo; `snapd doctor` lists what is missing";
const CHECKPOINT: Cause = Cause {
    code: "account:map-files",
    reason: "it lacks CAP_CHECKPOINT_RESTORE, without which nothing can be opened that is mapped",
    remedy: AS_ROOT,
};
const RESTORE: Cause = Cause {
    code: "account:numbers",
    reason: "it lacks CAP_CHECKPOINT_RESTORE, without which processes cannot get their numbers back",
    remedy: AS_ROOT,
};
/// `include/uapi/linux/capability.h`. The first stands for the second, which is newer.
const CAP_SYS_ADMIN: u32 = 21;
const CAP_CHECKPOINT_RESTORE: u32 = 40;

/// Refuses a checkpoint that would fail for want of a capability.
pub(crate) fn may_checkpoint() -> Result<()> {
    if can_open_map_files() { Ok(()) } else { Err(Error::Refused(vec![lacking(CHECKPOINT)])) }
}

/// What a restore lacks.
pub(crate) fn may_restore() -> Option<Obstacle> {
    let has = [CAP_SYS_ADMIN, CAP_CHECKPOINT_RESTORE].into_iter().any(has_capability);
    (!has).then(|| lacking(RESTORE))
}

fn lacking(cause: Cause) -> Obstacle {
    let object = format!("this account (user {})", nix::unistd::geteuid());
    Obstacle { pid: None, object, cause }
}
