//! What the schedulers of processors and disks know of a thread, asked from outside.
use nix::errno::Errno;
use nix::{Result, libc};

/// `IOPRIO_WHO_PROCESS` of `include/uapi/linux/ioprio.h`: one thread.
const WHO_PROCESS: i32 = 1;

/// `sched_getaffinity(2)`: how much of `room` it has filled.
pub(crate) fn affinity(tid: i32, room: &mut [u8]) -> Result<i64> {
    let call = libc::SYS_sched_getaffinity;
    // SAFETY: the call writes at most as many bytes as `room` has, to `room`, which outlives it.
    Errno::result(unsafe { libc::syscall(call, tid, room.len(), room.as_mut_ptr()) })
}

/// `sched_getattr(2)`, likewise.
pub(crate) fn attributes(tid: i32, room: &mut [u8]) -> Result<i64> {
    let (call, bytes) = (libc::SYS_sched_getattr, room.len());
    // SAFETY: the call writes at most as many bytes as `room` has, to `room`, which outlives it.
    Errno::result(unsafe { libc::syscall(call, tid, room.as_mut_ptr(), bytes, 0) })
}

/// `ioprio_get(2)`.
pub(crate) fn io_priority(tid: i32) -> Result<i64> {
    // SAFETY: the call takes numbers only.
    Errno::result(unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, tid) })
}
