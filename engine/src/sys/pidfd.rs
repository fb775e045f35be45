//! Handles of processes, and descriptors duplicated out of them (`pidfd_open(2)`, `pidfd_getfd(2)`);
//! the memory of those that are being killed (`process_mrelease(2)`).
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::{Result, libc};

use crate::inventory::Pid;

/// A handle of this process, close-on-exec as all of them are.
pub(crate) fn open(pid: Pid) -> Result<OwnedFd> {
    // SAFETY: the call takes numbers only.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.0, 0) })?;
    owned(fd)
}

/// A duplicate of descriptor `number` of the process behind `process`.
pub(crate) fn take(process: BorrowedFd<'_>, number: RawFd) -> Result<OwnedFd> {
    let handle = process.as_raw_fd();
    // SAFETY: the call takes numbers only; `process` is open for its length.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_getfd, handle, number, 0) })?;
    owned(fd)
}

/// `include/uapi/asm-generic/unistd.h`, since 5.15.
const SYS_PROCESS_MRELEASE: libc::c_long = 448;

/// Frees the memory of a process that was sent `SIGKILL`, side by side with its own ending.
pub(crate) fn release_memory(process: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the call takes numbers only; `process` is open for its length.
    Errno::result(unsafe { libc::syscall(SYS_PROCESS_MRELEASE, process.as_raw_fd(), 0) }).map(drop)
}

fn owned(fd: i64) -> Result<OwnedFd> {
    RawFd::try_from(fd).map(super::own).map_err(|_| Errno::EBADF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::kcmp;
    use std::cmp::Ordering;
    use std::os::fd::AsFd;

    #[test]
    fn only_the_memory_of_the_dying_is_released() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let handle = open(Pid(child.id().cast_signed())).unwrap();
        assert_eq!(release_memory(handle.as_fd()), Err(Errno::EINVAL));
        child.kill().unwrap();
        // It may have ended by itself already.
        assert!(matches!(release_memory(handle.as_fd()), Ok(()) | Err(Errno::ESRCH)));
        child.wait().unwrap();
    }

    #[test]
    fn what_was_taken_is_the_same_open_file() {
        let (read, write) = std::io::pipe().unwrap();
        let me = Pid(std::process::id().cast_signed());
        let taken = take(open(me).unwrap().as_fd(), read.as_raw_fd()).unwrap();
        let compare = |fd| kcmp::files((me, fd), (me, taken.as_raw_fd())).unwrap();
        assert_eq!(compare(read.as_raw_fd()), Ordering::Equal);
        assert_ne!(compare(write.as_raw_fd()), Ordering::Equal);
    }
}
