//! ptrace(2) as a restore needs it: blanks are held until their release.
//!
//! `ESRCH` means that the held one has died: `Errno::ESRCH` is passed on as it is.
use std::time::{Duration, Instant};

use nix::Result;
use nix::errno::Errno;
use nix::libc;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::thread::{Registers, Rseq};

/// `PTRACE_O_EXITKILL | PTRACE_O_SUSPEND_SECCOMP` need privilege for the latter; see [`seize`].
const EXITKILL: usize = libc::PTRACE_O_EXITKILL as usize;
/// `include/uapi/linux/ptrace.h`, since 4.3.
const SUSPEND_SECCOMP: usize = 1 << 21;
/// `include/uapi/linux/ptrace.h`, since 3.11.
const SETSIGMASK: libc::c_uint = 0x420b;
/// `include/uapi/linux/ptrace.h`, since 5.13.
const GET_RSEQ_CONFIGURATION: libc::c_uint = 0x420f;
/// `include/uapi/linux/elf.h`.
const NT_PRSTATUS: usize = 1;
const NT_X86_XSTATE: usize = 0x202;

/// `struct ptrace_rseq_configuration`.
#[repr(C)]
#[derive(Debug, Default)]
struct RseqConfiguration {
    address: u64,
    size: u32,
    signature: u32,
    flags: u32,
    pad: u32,
}

const _: () = assert!(size_of::<RseqConfiguration>() == 24);

fn request(request: libc::c_uint, tid: i32, addr: usize, data: usize) -> Result<()> {
    // SAFETY: every caller in this file passes, where the request takes memory, the address and
    // true length of a live buffer; the kernel touches nothing else of ours.
    Errno::result(unsafe { libc::ptrace(request, tid, addr, data) }).map(drop)
}

/// Sets which signals this thread blocks; which it did. By the kernel's call: glibc's would leave out
/// the two signals that it keeps for itself, one of which its timers send.
pub(crate) fn block(signals: u64) -> Result<u64> {
    let mut before = 0u64;
    // SAFETY: both are kernel signal sets, of the size that is told.
    let done = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const signals,
            &raw mut before,
            size_of::<u64>(),
        )
    };
    Errno::result(done).map(|_| before)
}

/// Attaches without stopping; it dies with us. Seccomp sleeps meanwhile, where we may ask for that.
pub(crate) fn seize(tid: i32) -> Result<()> {
    match request(libc::PTRACE_SEIZE, tid, 0, EXITKILL | SUSPEND_SECCOMP) {
        Err(Errno::EPERM | Errno::EINVAL) => request(libc::PTRACE_SEIZE, tid, 0, EXITKILL),
        other => other,
    }
}

/// Stops a running one, and waits for that.
pub(crate) fn stop(tid: i32) -> Result<()> {
    request(libc::PTRACE_INTERRUPT, tid, 0, 0)?;
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        match waitpid(Pid::from_raw(tid), Some(WaitPidFlag::__WALL))? {
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => return Err(Errno::ESRCH),
            WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..) => return Ok(()),
            _ if Instant::now() > end => return Err(Errno::ETIMEDOUT),
            _ => {}
        }
    }
}

/// Whether it has ended or stopped by itself: both mean that something went wrong in it. Of an
/// ended one the status is taken.
pub(crate) fn lost(tid: i32) -> bool {
    let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
    !matches!(waitpid(Pid::from_raw(tid), Some(flags)), Ok(WaitStatus::StillAlive))
}

/// Lets a stopped one go on, held.
pub(crate) fn resume(tid: i32) -> Result<()> {
    request(libc::PTRACE_CONT, tid, 0, 0)
}

/// From now on it outlives us.
pub(crate) fn spare(tid: i32) -> Result<()> {
    match request(libc::PTRACE_SETOPTIONS, tid, 0, SUSPEND_SECCOMP) {
        Err(Errno::EPERM | Errno::EINVAL) => request(libc::PTRACE_SETOPTIONS, tid, 0, 0),
        other => other,
    }
}

/// Lets a stopped one go for good.
pub(crate) fn detach(tid: i32) -> Result<()> {
    request(libc::PTRACE_DETACH, tid, 0, 0)
}

/// Runs a stopped one to the next entry to or return from a system call.
pub(crate) fn to_call(tid: i32) -> Result<()> {
    request(libc::PTRACE_SYSCALL, tid, 0, 0)?;
    match waitpid(Pid::from_raw(tid), Some(WaitPidFlag::__WALL))? {
        WaitStatus::Exited(..) | WaitStatus::Signaled(..) => Err(Errno::ESRCH),
        _ => Ok(()),
    }
}

fn set(tid: i32, kind: usize, bytes: &mut [u8]) -> Result<()> {
    let vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    request(libc::PTRACE_SETREGSET, tid, kind, (&raw const vector).expose_provenance())
}

/// All general registers, at once.
pub(crate) fn set_registers(tid: i32, registers: &Registers) -> Result<()> {
    let mut bytes: Vec<u8> = registers.0.into_iter().flat_map(u64::to_ne_bytes).collect();
    set(tid, NT_PRSTATUS, &mut bytes)
}

/// The raw xsave area.
pub(crate) fn set_xstate(tid: i32, xstate: &[u8]) -> Result<()> {
    if xstate.is_empty() { Ok(()) } else { set(tid, NT_X86_XSTATE, &mut xstate.to_vec()) }
}

/// The general registers.
pub(crate) fn registers(tid: i32) -> Result<Registers> {
    let mut words = [0u64; 27];
    let mut vector =
        libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: size_of_val(&words) };
    request(libc::PTRACE_GETREGSET, tid, NT_PRSTATUS, (&raw mut vector).expose_provenance())?;
    Ok(Registers(words))
}

/// The blocked signals.
pub(crate) fn set_blocked(tid: i32, blocked: u64) -> Result<()> {
    let mask = (&raw const blocked).expose_provenance();
    request(SETSIGMASK, tid, size_of::<u64>(), mask)
}

/// What a stopped one has registered with rseq(2).
pub(crate) fn rseq(tid: i32) -> Result<Option<Rseq>> {
    let mut found = RseqConfiguration::default();
    let len = size_of::<RseqConfiguration>();
    request(GET_RSEQ_CONFIGURATION, tid, len, (&raw mut found).expose_provenance())?;
    let RseqConfiguration { address, size, signature, .. } = found;
    Ok((address != 0).then_some(Rseq { address, size, signature }))
}

/// Stops a running, held one as job control does, by `signal`: until then it has blocked all. One
/// that it would ignore or handle by now, or that its group must not be stopped by, gives way to
/// `SIGSTOP`.
pub(crate) fn halt(pid: i32, signal: i32) -> Result<()> {
    stop(pid)?;
    set_blocked(pid, !bit(signal))?;
    let end = Instant::now() + Duration::from_millis(200);
    let default = !has_own_action(pid, signal);
    if default {
        send(pid, signal)?;
    }
    resume(pid)?;
    if default && halted(pid, signal, Some(end))? {
        return Ok(());
    }
    send(pid, libc::SIGSTOP)?;
    halted(pid, libc::SIGSTOP, None).map(drop)
}

fn bit(signal: i32) -> u64 {
    1u64.checked_shl((signal - 1).unsigned_abs()).unwrap_or(0)
}

/// Whether it ignores or handles this signal.
fn has_own_action(pid: i32, signal: i32) -> bool {
    let text = crate::procfs::text(format!("/proc/{pid}/status")).unwrap_or_default();
    let set = |line: &str| {
        let set = line.strip_prefix("SigIgn:").or(line.strip_prefix("SigCgt:"))?;
        u64::from_str_radix(set.trim(), 16).ok()
    };
    text.lines().filter_map(set).any(|set| set & bit(signal) != 0)
}

fn send(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: the call takes numbers only.
    Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Delivers `signal`, and waits for the group stop that comes of it: the tracee stays in it, for its
/// parent to see.
fn halted(pid: i32, signal: i32, end: Option<Instant>) -> Result<bool> {
    let flags = end.map_or(WaitPidFlag::__WALL, |_| WaitPidFlag::__WALL | WaitPidFlag::WNOHANG);
    loop {
        match waitpid(Pid::from_raw(pid), Some(flags))? {
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => return Err(Errno::ESRCH),
            WaitStatus::PtraceEvent(..) => return Ok(true),
            WaitStatus::Stopped(..) => {
                let signal = usize::try_from(signal).map_err(|_| Errno::EINVAL)?;
                request(libc::PTRACE_CONT, pid, 0, signal)?;
            }
            WaitStatus::StillAlive if end.is_some_and(|end| Instant::now() > end) => {
                return Ok(false);
            }
            _ => std::thread::yield_now(),
        }
    }
}

/// Ends one at once.
pub(crate) fn kill(pid: i32) {
    // SAFETY: the call takes numbers only. That it is gone already is as good.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Waits until a killed one, held or our child, is gone.
pub(crate) fn reap(tid: i32) {
    loop {
        match waitpid(Pid::from_raw(tid), Some(WaitPidFlag::__WALL)) {
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => return,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// Ends a held one of a single thread, and waits until it is gone.
pub(crate) fn end(pid: i32) {
    kill(pid);
    reap(pid);
}

/// Waits until somebody else's child has ended.
pub(crate) fn until_zombie(pid: i32) {
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = text.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if matches!(state, None | Some('Z' | 'X')) {
            return;
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// The raw xsave area and the blocked signals of a stopped one, for tests.
#[cfg(test)]
pub(crate) fn state(tid: i32) -> Result<(Vec<u8>, u64)> {
    const GETSIGMASK: libc::c_uint = 0x420a;
    let mut xstate = vec![0u8; 0x4000];
    let mut vector = libc::iovec { iov_base: xstate.as_mut_ptr().cast(), iov_len: xstate.len() };
    let at = (&raw mut vector).expose_provenance();
    request(libc::PTRACE_GETREGSET, tid, NT_X86_XSTATE, at)?;
    // SAFETY: a plain read of a local that the kernel has changed through its address.
    xstate.truncate(unsafe { (&raw const vector).read_volatile() }.iov_len);
    let mut blocked = 0u64;
    request(GETSIGMASK, tid, 8, (&raw mut blocked).expose_provenance())?;
    // SAFETY: likewise.
    Ok((xstate, unsafe { (&raw const blocked).read_volatile() }))
}

/// Waits until a number is free again, for tests.
#[cfg(test)]
pub(crate) fn until_gone(pid: i32) {
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end && std::path::Path::new(&format!("/proc/{pid}")).exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A timer's signal (32) once killed a blank, in which all signals seemed to be blocked.
    #[test]
    fn really_all_signals_are_blocked() {
        let before = block(u64::MAX).unwrap();
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        block(before).unwrap();
        assert!(status.contains("SigBlk:\tfffffffffffbfeff"), "{status}");
    }
}
