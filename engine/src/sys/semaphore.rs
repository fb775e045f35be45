//! semctl(2): who used a semaphore of System V last.
use nix::errno::Errno;
use nix::{Result, libc};

/// `GETPID` of `include/uapi/linux/sem.h`.
const GETPID: i32 = 11;

/// The process, as our PID namespace numbers it; zero: nobody, or nobody of it.
pub(crate) fn last_user(set: i32, number: i32) -> Result<i32> {
    // SAFETY: this command takes no fourth argument, and changes nothing.
    Errno::result(unsafe { libc::semctl(set, number, GETPID) })
}
