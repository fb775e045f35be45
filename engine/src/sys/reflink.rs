//! What a file holds at an instant, without copying it: blocks that two files share until one writes.
//!
//! References: `ioctl_ficlonerange(2)`, `sync_file_range(2)`.
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::Result;
use nix::errno::Errno;
use nix::libc;

/// Writes back what of a file is dirty, and waits until it is clean; the disk's own cache is left alone.
pub(crate) fn write_back(file: BorrowedFd<'_>) -> Result<()> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: the call takes a descriptor, which is open for its length, and numbers.
    Errno::result(unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, flags) }).map(drop)
}

/// `struct file_clone_range` of `include/uapi/linux/fs.h`, since 4.5.
#[repr(C)]
struct Range {
    file: i64,
    at: u64,
    len: u64,
    to: u64,
}

/// `_IOW(0x94, 13, struct file_clone_range)` of the same file.
const FICLONERANGE: libc::Ioctl = 0x4020_940d;
const _: () = assert!(size_of::<Range>() == 32);

/// Has `twin` hold in a range, or from there on if `len` is zero, what `file` does there.
pub(crate) fn share_range(
    file: BorrowedFd<'_>,
    twin: BorrowedFd<'_>,
    at: u64,
    len: u64,
) -> Result<()> {
    let range = Range { file: i64::from(file.as_raw_fd()), at, len, to: at };
    // SAFETY: `range` lives as long as the call, which only reads it; both descriptors are open.
    Errno::result(unsafe { libc::ioctl(twin.as_raw_fd(), FICLONERANGE, &raw const range) })
        .map(drop)
}
