//! Shared memory without a name: made by mapping it, and held by what /proc shows of the mapping.
//!
//! References: mmap(2), `/proc/PID/map_files` in proc(5), which wants `CAP_CHECKPOINT_RESTORE` or
//! `CAP_SYS_ADMIN`.
use std::num::NonZeroUsize;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use nix::Result;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use nix::sys::stat::Mode;
use nix::unistd::ftruncate;

/// `MAP_HUGE_SHIFT` of `include/uapi/asm-generic/hugetlb_encode.h`.
const HUGE_SHIFT: u32 = 26;

/// Our own mapping, gone on drop.
struct Mapping(NonNull<libc::c_void>, usize);

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the area is ours alone, made by this module, and nothing refers into it any more.
        if let Err(errno) = unsafe { munmap(self.0, self.1) } {
            tracing::warn!(%errno, "cannot unmap");
        }
    }
}

/// The inode under a mapping `MAP_SHARED | MAP_ANONYMOUS` of `size` bytes; of huge pages of
/// `2^huge` bytes, if that is not zero. Whoever has opened one may have cut it to any size since.
pub(crate) fn shared_memory(size: usize, huge: u32) -> Result<OwnedFd> {
    let page = 1usize.checked_shl(huge.max(12)).ok_or(Errno::EINVAL)?;
    let whole = size.max(1).checked_next_multiple_of(page).ok_or(Errno::EFBIG)?;
    let made = map_and_open(whole, huge)?;
    if whole != size {
        ftruncate(&made, size.try_into().map_err(|_| Errno::EFBIG)?)?;
    }
    Ok(made)
}

fn map_and_open(size: usize, huge: u32) -> Result<OwnedFd> {
    let size = NonZeroUsize::new(size).ok_or(Errno::EINVAL)?;
    let mut flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
    if huge != 0 {
        let encoded = huge.checked_shl(HUGE_SHIFT).ok_or(Errno::EINVAL)?.cast_signed();
        flags |= MapFlags::MAP_HUGETLB | MapFlags::from_bits_retain(encoded);
    }
    // SAFETY: no address is asked for, so the area is a new one and touches nothing that exists.
    let at = unsafe { mmap_anonymous(None, size, ProtFlags::PROT_NONE, flags) }?;
    let mapping = Mapping(at, size.get());
    let start = mapping.0.addr().get();
    let path = format!("/proc/self/map_files/{start:x}-{:x}", start + size.get());
    open(&*path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
}

/// Writes `bytes` at `at` through a mapping, for files that write(2) cannot write (hugetlbfs).
pub(crate) fn write_mapped(file: BorrowedFd<'_>, at: u64, bytes: &[u8], page: u64) -> Result<()> {
    let start = at / page * page;
    let skip = usize::try_from(at - start).map_err(|_| Errno::EFBIG)?;
    let page = usize::try_from(page).map_err(|_| Errno::EFBIG)?;
    let len = NonZeroUsize::new((skip + bytes.len()).next_multiple_of(page));
    let len = len.ok_or(Errno::EINVAL)?;
    let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let offset = start.try_into().map_err(|_| Errno::EFBIG)?;
    // SAFETY: no address is asked for, so the area is a new one and touches nothing that exists.
    let area = unsafe { mmap(None, len, prot, MapFlags::MAP_SHARED, file, offset) }?;
    let mapping = Mapping(area, len.get());
    // SAFETY: `skip` is less than `len`, the length of the area.
    let place = unsafe { mapping.0.cast::<u8>().add(skip) };
    // SAFETY: `skip + bytes.len()` is at most `len`, and the area is writable; it is new, so it cannot
    // overlap `bytes`.
    unsafe { place.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
    Ok(())
}
