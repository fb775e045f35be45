//! `PAGEMAP_SCAN`: which pages of a range are of which sort, as few ranges.
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::{Result, libc};

/// `PAGE_IS_*` of `include/uapi/linux/fs.h`, since 6.7. Of an area whose writes a userfaultfd lets pass
/// (`WP_ASYNC`), present or not:
pub(crate) const WPALLOWED: u64 = 1 << 0;
/// Written since it was last protected; always, where that cannot be told.
pub(crate) const WRITTEN: u64 = 1 << 1;
pub(crate) const FILE: u64 = 1 << 2;
pub(crate) const PRESENT: u64 = 1 << 3;
pub(crate) const SWAPPED: u64 = 1 << 4;
pub(crate) const PFNZERO: u64 = 1 << 5;
pub(crate) const HUGE: u64 = 1 << 6;
/// Since 6.16.
pub(crate) const GUARD: u64 = 1 << 8;

/// `_IOWR('f', 16, struct pm_scan_arg)` of `include/uapi/linux/fs.h`, since 6.7.
const PAGEMAP_SCAN: libc::Ioctl = 0xc060_6610;

/// Protects what is told, if [`WPALLOWED`].
const PM_SCAN_WP_MATCHING: u64 = 1 << 0;

/// Entries of `/proc/PID/pagemap`, one for each page (`pagemap.rst`).
pub(crate) mod entry {
    /// Its frame, for those who may know.
    pub(crate) const FRAME: u64 = (1 << 55) - 1;
    /// Soft-dirty.
    pub(crate) const MARKED: u64 = 1 << 55;
    pub(crate) const EXCLUSIVE: u64 = 1 << 56;
    pub(crate) const FILE: u64 = 1 << 61;
    pub(crate) const SWAPPED: u64 = 1 << 62;
    pub(crate) const PRESENT: u64 = 1 << 63;

    /// There, and no file's.
    pub(crate) fn is_private(entry: u64) -> bool {
        entry & (PRESENT | SWAPPED) != 0 && entry & FILE == 0
    }
}

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

/// Which pages to tell of.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Which {
    /// None of these.
    pub(crate) not: u64,
    /// All of these.
    pub(crate) all: u64,
    /// One of these, or anything if none is named.
    pub(crate) any: u64,
    /// What to tell of them.
    pub(crate) tell: u64,
    /// They count as not written from now on.
    pub(crate) protect: bool,
    /// The first will do.
    pub(crate) one: bool,
}

/// One step: fills `room` with ranges of pages; how many, and up to where it has looked.
pub(crate) fn scan(
    pagemap: BorrowedFd<'_>,
    (start, end): (u64, u64),
    which: Which,
    room: &mut [Region],
) -> Result<(usize, u64)> {
    let mut arg = Scan {
        size: size_of::<Scan>() as u64,
        flags: if which.protect { PM_SCAN_WP_MATCHING } else { 0 },
        start,
        end,
        vec: room.as_mut_ptr().expose_provenance() as u64,
        vec_len: room.len() as u64,
        max_pages: which.one.into(),
        category_inverted: which.not,
        category_mask: which.not | which.all,
        category_anyof_mask: which.any,
        return_mask: which.tell,
        ..Scan::default()
    };
    // SAFETY: the kernel reads and writes `arg`, whose size it is told, and writes at most `vec_len`
    // regions into `room`, which is ours for the length of the call.
    let done = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut arg) };
    let count = usize::try_from(Errno::result(done)?).map_err(|_| Errno::EBADMSG)?;
    // The kernel tells the end of its last full round, which need not have been the last (6.18).
    let last = room.get(..count).and_then(<[_]>::last).map_or(0, |region| region.end);
    Ok((count, if count < room.len() { end } else { arg.walk_end.max(last) }))
}

/// Likewise, all of a range.
pub(crate) fn scan_all(
    pagemap: BorrowedFd<'_>,
    (mut at, end): (u64, u64),
    which: Which,
    room: &mut [Region],
    found: &mut Vec<Region>,
) -> Result<()> {
    while at < end {
        let (count, reached) = scan(pagemap, (at, end), which, room)?;
        found.extend(room.iter().take(count));
        if reached <= at {
            return Err(Errno::EBADMSG);
        }
        at = reached;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous};
    use std::num::NonZeroUsize;
    use std::os::fd::AsFd;

    /// More ranges than there is room for, and then a gap: the kernel says that it has looked less
    /// far than it has, and whoever believes it gets the last ranges twice.
    #[test]
    fn no_range_is_told_twice() {
        const PAGES: usize = 6000;
        let len = NonZeroUsize::new(PAGES * 4096).unwrap();
        let (prot, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE);
        // SAFETY: new memory, wherever the kernel likes.
        let base = unsafe { mmap_anonymous(None, len, prot, flags) }.unwrap();
        // SAFETY: of the memory that was just mapped.
        unsafe { madvise(base, PAGES * 4096, MmapAdvise::MADV_NOHUGEPAGE) }.unwrap();
        for page in (0..PAGES).step_by(2) {
            let at = base.as_ptr().cast::<u8>().wrapping_add(page * 4096);
            // SAFETY: within the memory that was just mapped.
            unsafe { at.write(1) };
        }
        let pagemap = std::fs::File::open("/proc/self/pagemap").unwrap();
        let start = base.addr().get() as u64;
        let (mut room, mut at, mut seen) = (vec![Region::default(); 1000], start, Vec::new());
        while at < 0x7fff_ffff_f000 {
            let sorts = Which {
                not: FILE | PFNZERO,
                any: PRESENT | SWAPPED,
                tell: PRESENT,
                ..Which::default()
            };
            let (count, reached) =
                scan(pagemap.as_fd(), (at, 0x7fff_ffff_f000), sorts, &mut room).unwrap();
            seen.extend_from_slice(&room[..count]);
            at = reached;
        }
        assert!(seen.windows(2).all(|two| two[0].end <= two[1].start));
        assert!(seen.len() >= PAGES / 2);
    }
}
