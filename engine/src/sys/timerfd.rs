//! `timerfd_create(2)`, with what nix does not show: intervals of disarmed timers, and the ticks.
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::Result;
use nix::errno::Errno;
use nix::libc;

/// `TFD_IOC_SET_TICKS` of `include/uapi/linux/timerfd.h`, since 3.17: `_IOW('T', 0, __u64)`.
const SET_TICKS: libc::Ioctl = 0x4008_5400;

/// Until the next expiration, and between those that follow: nanoseconds, zero for never.
pub(crate) type Setting = (i64, i64);

/// A new one, which does not block.
pub(crate) fn create(clock: i32) -> Result<OwnedFd> {
    let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
    // SAFETY: no pointers are passed.
    Errno::result(unsafe { libc::timerfd_create(clock, flags) }).map(super::own)
}

/// The time that remains. Moves a periodic timer on that nobody has read since it expired.
pub(crate) fn remaining(fd: BorrowedFd<'_>) -> Result<Setting> {
    let mut now = spec((0, 0));
    // SAFETY: `fd` is open and `now` is a valid itimerspec, both for the length of the call.
    Errno::result(unsafe { libc::timerfd_gettime(fd.as_raw_fd(), &raw mut now) })?;
    Ok((nanoseconds(now.it_value), nanoseconds(now.it_interval)))
}

/// Arms it, `flags` being `TFD_TIMER_*`.
pub(crate) fn set(fd: BorrowedFd<'_>, flags: i32, setting: Setting) -> Result<()> {
    let (new, old) = (spec(setting), std::ptr::null_mut());
    // SAFETY: `fd` is open and `new` is valid for the length of the call; a null `old` is allowed.
    Errno::result(unsafe { libc::timerfd_settime(fd.as_raw_fd(), flags, &raw const new, old) })?;
    Ok(())
}

/// Makes the next read(2) find this many expirations.
pub(crate) fn set_ticks(fd: BorrowedFd<'_>, ticks: u64) -> Result<()> {
    // SAFETY: `fd` is open, and the request reads one u64 at `ticks`, for the length of the call.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), SET_TICKS, &raw const ticks) })?;
    Ok(())
}

fn spec((value, interval): Setting) -> libc::itimerspec {
    let time = |nanos: i64| libc::timespec {
        tv_sec: nanos.div_euclid(1_000_000_000),
        tv_nsec: nanos.rem_euclid(1_000_000_000),
    };
    libc::itimerspec { it_value: time(value), it_interval: time(interval) }
}

fn nanoseconds(time: libc::timespec) -> i64 {
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}
