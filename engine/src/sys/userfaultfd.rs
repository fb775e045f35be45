//! `userfaultfd(2)`, for two things: write protection that the kernel takes off by itself
//! (`UFFD_FEATURE_WP_ASYNC`, since 6.7), so that nobody is told of writes, but `PAGEMAP_SCAN` knows of
//! them; and pages that are made of bytes (`UFFDIO_COPY`).
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::{Result, libc};

/// `include/uapi/linux/userfaultfd.h`: so that users without privileges may have one.
pub(crate) const USER_MODE_ONLY: u64 = 1;
const API: u64 = 0xaa;
const FEATURE_WP_UNPOPULATED: u64 = 1 << 13;
const FEATURE_WP_ASYNC: u64 = 1 << 15;
/// What [`agree`] takes for tracking.
pub(crate) const TRACKING: u64 = FEATURE_WP_ASYNC | FEATURE_WP_UNPOPULATED;
/// `UFFDIO_COPY_MODE_DONTWAKE`.
const DONT_WAKE: u64 = 1;
/// `_IOWR(0xaa, 0x3f, struct uffdio_api)`, `_IOWR(0xaa, 0, struct uffdio_register)`,
/// `_IOWR(0xaa, 3, struct uffdio_copy)` and `_IOWR(0xaa, 6, struct uffdio_writeprotect)`.
const UFFDIO_API: libc::Ioctl = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::Ioctl = 0xc020_aa00;
const UFFDIO_COPY: libc::Ioctl = 0xc028_aa03;
const UFFDIO_WRITEPROTECT: libc::Ioctl = 0xc018_aa06;

/// What it watches over (`UFFDIO_REGISTER_MODE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Watch {
    /// Touches of pages that are not there.
    Missing = 1,
    /// Writes to pages that are protected.
    Protected = 2,
}

/// `struct uffdio_api` of the same file.
#[repr(C)]
struct Agreement {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register` of the same file.
#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

/// `struct uffdio_copy` of the same file.
#[repr(C)]
struct Copy {
    to: u64,
    from: u64,
    len: u64,
    mode: u64,
    /// How much was copied, or a negated errno.
    done: i64,
}

/// `struct uffdio_writeprotect` of the same file.
#[repr(C)]
struct Protect {
    start: u64,
    len: u64,
    mode: u64,
}

const _: () = assert!(size_of::<Agreement>() == 24 && size_of::<Register>() == 32);
const _: () = assert!(size_of::<Protect>() == 24 && size_of::<Copy>() == 40);

/// Agrees on what it shall be able to do. `EINVAL`: the kernel is older.
pub(crate) fn agree(fd: BorrowedFd<'_>, features: u64) -> Result<()> {
    let mut arg = Agreement { api: API, features, ioctls: 0 };
    // SAFETY: the kernel reads and writes `arg`, which is of the size that the number tells.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_API, &raw mut arg) };
    Errno::result(done).map(drop)
}

/// Has it watch over an area of its address space. `EBUSY`: another one does already.
pub(crate) fn register(fd: BorrowedFd<'_>, (start, end): (u64, u64), what: Watch) -> Result<()> {
    let mut arg = Register { start, len: end - start, mode: what as u64, ioctls: 0 };
    // SAFETY: the kernel reads and writes `arg`, which is of the size that the number tells; the
    // memory that it names keeps its contents, and what is there may be written as before.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_REGISTER, &raw mut arg) };
    Errno::result(done).map(drop)
}

/// Takes protection off all pages of an area that it watches over.
pub(crate) fn unprotect(fd: BorrowedFd<'_>, (start, end): (u64, u64)) -> Result<()> {
    let mut arg = Protect { start, len: end - start, mode: 0 };
    // SAFETY: the kernel reads `arg`, which is of the size that the number tells; the memory that it
    // names keeps its contents, and may be written as before.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_WRITEPROTECT, &raw mut arg) };
    Errno::result(done).map(drop)
}

/// Makes pages of `bytes` at `to`, in areas whose missing pages it watches over; how many bytes were
/// copied. `EEXIST`: the first page is there already.
pub(crate) fn copy(fd: BorrowedFd<'_>, to: u64, bytes: &[u8]) -> Result<usize> {
    let from = bytes.as_ptr().expose_provenance() as u64;
    let mut arg = Copy { to, from, len: bytes.len() as u64, mode: DONT_WAKE, done: 0 };
    // SAFETY: the kernel reads and writes `arg`, which is of the size that the number tells, and reads
    // `bytes`, which outlive the call; of the memory at `to` it makes pages only where none are.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_COPY, &raw mut arg) };
    match (Errno::result(done), usize::try_from(arg.done)) {
        (_, Ok(copied @ 1..)) => Ok(copied),
        (Err(errno), _) => Err(errno),
        (Ok(_), _) => Err(Errno::EAGAIN),
    }
}
