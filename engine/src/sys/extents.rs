//! Where on the disk a file's contents lie.
//!
//! References: `Documentation/filesystems/fiemap.rst`.
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::Result;
use nix::errno::Errno;
use nix::libc;

/// `_IOWR('f', 11, struct fiemap)` of `include/uapi/linux/fs.h`, since 2.6.28.
const FIEMAP: libc::Ioctl = 0xc020_660b;
/// `FIEMAP_FLAG_SYNC` of `include/uapi/linux/fiemap.h`: what is dirty is written back first.
const SYNC: u32 = 1;
/// `FIEMAP_EXTENT_*` of the same file.
pub(crate) const LAST: u32 = 1;
pub(crate) const UNWRITTEN: u32 = 0x800;
pub(crate) const MERGED: u32 = 0x1000;
pub(crate) const SHARED: u32 = 0x2000;

/// `struct fiemap_extent` of the same file.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) at: u64,
    pub(crate) physical: u64,
    pub(crate) len: u64,
    pub(crate) reserved: [u64; 2],
    pub(crate) flags: u32,
    pub(crate) reserved_too: [u32; 3],
}
const _: () = assert!(size_of::<Extent>() == 56);

/// How many are asked for at once.
const ROOM: u32 = 256;

/// `struct fiemap` of the same file, with room behind it.
#[repr(C)]
struct Map {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [Extent; ROOM as usize],
}
const _: () = assert!(std::mem::offset_of!(Map, extents) == 32);

/// All extents of a file, ascending.
pub(crate) fn of(file: BorrowedFd<'_>) -> Result<Vec<Extent>> {
    let mut map = Box::new(Map {
        start: 0,
        length: u64::MAX,
        flags: SYNC,
        mapped: 0,
        count: ROOM,
        reserved: 0,
        extents: [Extent::default(); ROOM as usize],
    });
    let mut found: Vec<Extent> = Vec::new();
    loop {
        // SAFETY: `map` has room for as many extents as it says, and is ours for the length of the call.
        Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), FIEMAP, &raw mut *map) })?;
        let mapped = usize::try_from(map.mapped).unwrap_or_default();
        let told = map.extents.get(..mapped).unwrap_or_default();
        found.extend_from_slice(told);
        match told.last() {
            Some(last) if last.flags & LAST == 0 => map.start = last.at + last.len,
            _ => return Ok(found),
        }
        map.length = u64::MAX - map.start;
        map.flags = 0;
    }
}
