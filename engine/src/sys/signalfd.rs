//! signalfd(2) with all 64 signals: the C library's sets leave some out.
use std::os::fd::OwnedFd;

use nix::Result;
use nix::errno::Errno;
use nix::libc;

/// A new one for the signals of `mask`, which does not block.
pub(crate) fn create(mask: u64) -> Result<OwnedFd> {
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    let len = size_of::<u64>();
    // SAFETY: `mask` is of the announced length and valid for the length of the call.
    let made = unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const mask, len, flags) };
    i32::try_from(Errno::result(made)?).map(super::own).map_err(|_| Errno::EBADF)
}
