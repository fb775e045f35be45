//! `userfaultfd(2)`, for write protection that the kernel takes off by itself (`UFFD_FEATURE_WP_ASYNC`,
//! since 6.7): nobody is told of writes, but `PAGEMAP_SCAN` knows of them.
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::{Result, libc};

/// `include/uapi/linux/userfaultfd.h`: so that users without privileges may have one.
pub(crate) const USER_MODE_ONLY: u64 = 1;
const API: u64 = 0xaa;
const FEATURE_WP_UNPOPULATED: u64 = 1 << 13;
const FEATURE_WP_ASYNC: u64 = 1 << 15;
const REGISTER_MODE_WP: u64 = 1 << 1;
/// `_IOWR(0xaa, 0x3f, struct uffdio_api)`, `_IOWR(0xaa, 0, struct uffdio_register)` and
/// `_IOWR(0xaa, 6, struct uffdio_writeprotect)`.
const UFFDIO_API: libc::Ioctl = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::Ioctl = 0xc020_aa00;
const UFFDIO_WRITEPROTECT: libc::Ioctl = 0xc018_aa06;

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

/// `struct uffdio_writeprotect` of the same file.
#[repr(C)]
struct Protect {
    start: u64,
    len: u64,
    mode: u64,
}

const _: () = assert!(size_of::<Agreement>() == 24 && size_of::<Register>() == 32);
const _: () = assert!(size_of::<Protect>() == 24);

/// Agrees on what it shall do. `EINVAL`: the kernel is older.
pub(crate) fn agree(fd: BorrowedFd<'_>) -> Result<()> {
    let features = FEATURE_WP_ASYNC | FEATURE_WP_UNPOPULATED;
    let mut arg = Agreement { api: API, features, ioctls: 0 };
    // SAFETY: the kernel reads and writes `arg`, which is of the size that the number tells.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_API, &raw mut arg) };
    Errno::result(done).map(drop)
}

/// Has it watch over an area of its address space. `EBUSY`: another one does already.
pub(crate) fn register(fd: BorrowedFd<'_>, (start, end): (u64, u64)) -> Result<()> {
    let mut arg = Register { start, len: end - start, mode: REGISTER_MODE_WP, ioctls: 0 };
    // SAFETY: the kernel reads and writes `arg`, which is of the size that the number tells; the
    // memory that it names keeps its contents, and may be written as before.
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
