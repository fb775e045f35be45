//! kcmp(2): whether two tasks share a kernel object, and an order among those that differ.
use std::cmp::Ordering;
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::{Result, libc};

use crate::inventory::Pid;

/// `enum kcmp_type` of `include/uapi/linux/kcmp.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shared {
    /// `KCMP_VM`: the address space.
    Space = 1,
    /// `KCMP_FILES`: the table of descriptors.
    Table = 2,
    /// `KCMP_FS`: working directory, root, umask.
    Fs = 3,
}

const KCMP_FILE: i32 = 0;
/// Since 4.13.
const KCMP_EPOLL_TFD: i32 = 7;

/// `struct kcmp_epoll_slot` of `include/uapi/linux/kcmp.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct EpollSlot {
    /// Number of the epoll.
    pub(crate) epoll: u32,
    /// Number that the entry was added by.
    pub(crate) number: u32,
    /// Which of the entries that were added by this number, in the kernel's order.
    pub(crate) index: u32,
}
const _: () = assert!(size_of::<EpollSlot>() == 12);

/// Compares the open file behind a descriptor with the one that an entry of an epoll of ours watches.
pub(crate) fn watched((one, fd): (Pid, RawFd), me: Pid, slot: &EpollSlot) -> Result<Ordering> {
    let slot = std::ptr::from_ref(slot).expose_provenance();
    // SAFETY: the kernel reads one `struct kcmp_epoll_slot`, which outlives the call.
    let told = unsafe { libc::syscall(libc::SYS_kcmp, one.0, me.0, KCMP_EPOLL_TFD, fd, slot) };
    order(Errno::result(told)?)
}

/// Compares what two tasks have of one kind. The order is the kernel's own, and means nothing.
pub(crate) fn shared(what: Shared, one: Pid, other: Pid) -> Result<Ordering> {
    kcmp(one, other, what as i32, 0, 0)
}

/// Compares the open files behind a descriptor of each of two processes.
pub(crate) fn files((one, a): (Pid, RawFd), (other, b): (Pid, RawFd)) -> Result<Ordering> {
    kcmp(one, other, KCMP_FILE, a, b)
}

fn kcmp(one: Pid, other: Pid, what: i32, a: RawFd, b: RawFd) -> Result<Ordering> {
    // SAFETY: the call takes numbers only, and changes nothing.
    order(Errno::result(unsafe { libc::syscall(libc::SYS_kcmp, one.0, other.0, what, a, b) })?)
}

fn order(told: i64) -> Result<Ordering> {
    match told {
        0 => Ok(Ordering::Equal),
        1 => Ok(Ordering::Less),
        2 => Ok(Ordering::Greater),
        _ => Err(Errno::EBADMSG),
    }
}
