//! Who is told of I/O on an open file, by which signal, and on whose behalf: fcntl(2).
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::Result;
use nix::errno::Errno;
use nix::libc;

/// `include/uapi/asm-generic/fcntl.h`; libc lacks them.
pub(crate) const F_SETSIG: i32 = 10;
const F_GETSIG: i32 = 11;
pub(crate) const F_SETOWN_EX: i32 = 15;
const F_GETOWN_EX: i32 = 16;
/// Since 3.6, with `CONFIG_CHECKPOINT_RESTORE`: two `uid_t`, real and effective.
const F_GETOWNER_UIDS: i32 = 17;

/// `F_GETOWN_EX`: what it is (`F_OWNER_TID`, `_PID`, `_PGRP`), and its number.
pub(crate) fn get(fd: BorrowedFd<'_>) -> Result<(i32, i32)> {
    let mut owner = [0i32; 2];
    // SAFETY: `fd` is open, and `owner` has the two ints of `struct f_owner_ex`, for the length of
    // the call.
    let done = unsafe { libc::fcntl(fd.as_raw_fd(), F_GETOWN_EX, owner.as_mut_ptr()) };
    Errno::result(done)?;
    Ok((owner[0], owner[1]))
}

/// As whom the owner was set: real and effective user.
pub(crate) fn setter(fd: BorrowedFd<'_>) -> Result<(u32, u32)> {
    let mut users = [0u32; 2];
    // SAFETY: `fd` is open, and `users` has room for the two uids, for the length of the call.
    let done = unsafe { libc::fcntl(fd.as_raw_fd(), F_GETOWNER_UIDS, users.as_mut_ptr()) };
    Errno::result(done)?;
    Ok((users[0], users[1]))
}

/// `F_GETSIG`.
pub(crate) fn signal(fd: BorrowedFd<'_>) -> Result<i32> {
    // SAFETY: `fd` is open for the length of the call, and F_GETSIG takes no pointer.
    Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), F_GETSIG) })
}
