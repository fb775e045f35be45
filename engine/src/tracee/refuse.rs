//! Why a tree cannot be frozen, or a thread not be borrowed.
use super::procfs::{Stat, Status};
use crate::error::{Cause, Error, Obstacle};
use crate::inventory::{Pid, Tid};
use std::fmt::Write as _;

pub(super) const TRACED: Cause = Cause {
    code: "busy:traced",
    reason: "somebody else traces it",
    remedy: "end the debugger or strace that is attached to it",
};
pub(super) const TIMEOUT: Cause = Cause {
    code: "busy:freeze-timeout",
    reason: "it did not stop in time",
    remedy: "try again: it waits in the kernel, for a device or for its vfork child",
};
pub(super) const FROZEN: Cause = Cause {
    code: "busy:cgroup-frozen",
    reason: "its control group is frozen, in which nobody can be asked anything",
    remedy: "thaw the group for the checkpoint",
};
pub(super) const PERMISSION: Cause = Cause {
    code: "process:not-permitted",
    reason: "we may not trace it",
    remedy: "run as its owner, or as root",
};
pub(super) const KERNEL_THREAD: Cause = Cause {
    code: "process:kernel-thread",
    reason: "it belongs to the kernel",
    remedy: "name a program's process",
};
pub(super) const INIT: Cause = Cause {
    code: "process:init",
    reason: "it is the first process of its PID namespace",
    remedy: "name one of the processes below it",
};
pub(super) const OURSELVES: Cause = Cause {
    code: "process:self",
    reason: "it is the one who is asking",
    remedy: "run from outside of the tree",
};
pub(super) const LEADER_GONE: Cause = Cause {
    code: "process:leader-gone",
    reason: "its first thread has ended while others run",
    remedy: "none: such a process can be neither frozen whole nor rebuilt",
};
pub(super) const NO_PROCESS: Cause = Cause {
    code: "process:gone",
    reason: "there is no such process",
    remedy: "look up its number again",
};
pub(super) const NO_CAVE: Cause = Cause {
    code: "remote:no-cave",
    reason: "its vdso is missing, sealed or full, so no call can be made inside it",
    remedy: "run it on a kernel that maps a vdso into programs",
};
pub(super) const DISPATCHES: Cause = Cause {
    code: "remote:dispatched",
    reason: "its system calls are emulated (PR_SET_SYSCALL_USER_DISPATCH), also those made inside it",
    remedy: "none: such a program cannot be saved yet",
};
pub(super) const NO_AREA: Cause = Cause {
    code: "remote:no-area",
    reason: "it cannot map the memory that calls inside it need",
    remedy: "raise its limit of address space or its cgroup's memory",
};

/// A refusal that names the task.
pub(super) fn refused(pid: Pid, tid: Tid, cause: Cause) -> Error {
    let status = Status::of(tid);
    let mut object = format!("thread {tid} ({})", status.name());
    if cause == TRACED {
        let tracer = status.number("TracerPid").unwrap_or_default();
        let name = Status::of(Tid(tracer)).name().to_owned();
        let _ = write!(object, ", traced by {tracer} ({name})");
    }
    if cause == TIMEOUT {
        let _ = write!(object, ", in state {}", Stat::of(tid).state());
    }
    Error::Refused(vec![Obstacle { pid: Some(pid), object, cause }])
}
