//! Handles of processes, and descriptors duplicated out of them (`pidfd_open(2)`, `pidfd_getfd(2)`).
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

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

fn owned(fd: i64) -> Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::kcmp;
    use std::cmp::Ordering;
    use std::os::fd::AsFd;

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
