//! `PAGEMAP_SCAN`: which pages of a range are of which sort, as few ranges.
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::{Result, libc};

/// `PAGE_IS_*` of `include/uapi/linux/fs.h`, since 6.7.
pub(crate) const FILE: u64 = 1 << 2;
pub(crate) const PRESENT: u64 = 1 << 3;
pub(crate) const SWAPPED: u64 = 1 << 4;
pub(crate) const PFNZERO: u64 = 1 << 5;
/// Since 6.16.
pub(crate) const GUARD: u64 = 1 << 8;

/// `_IOWR('f', 16, struct pm_scan_arg)` of `include/uapi/linux/fs.h`, since 6.7.
const PAGEMAP_SCAN: libc::Ioctl = 0xc060_6610;

/// `struct page_region` of the same file.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Region {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) categories: u64,
}

/// `struct pm_scan_arg` of the same file.
#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

const _: () = assert!(size_of::<Scan>() == 96 && size_of::<Region>() == 24);

/// One step: fills `room` with ranges of pages that are none of `not` and any of `any`; how many,
/// and up to where it has looked.
pub(crate) fn scan(
    pagemap: BorrowedFd<'_>,
    (start, end): (u64, u64),
    (not, any, tell): (u64, u64, u64),
    room: &mut [Region],
) -> Result<(usize, u64)> {
    let mut arg = Scan {
        size: size_of::<Scan>() as u64,
        start,
        end,
        vec: room.as_mut_ptr().expose_provenance() as u64,
        vec_len: room.len() as u64,
        category_inverted: not,
        category_mask: not,
        category_anyof_mask: any,
        return_mask: tell,
        ..Scan::default()
    };
    // SAFETY: the kernel reads and writes `arg`, whose size it is told, and writes at most `vec_len`
    // regions into `room`, which is ours for the length of the call.
    let done = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut arg) };
    let count = usize::try_from(Errno::result(done)?).map_err(|_| Errno::EBADMSG)?;
    Ok((count, arg.walk_end))
}
