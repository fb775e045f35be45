//! ptrace(2), for tracees that were seized.
//!
//! nix wraps a part of it, with types that lack real-time signals and raw registers; this is what a
//! tracer that changes nothing needs, and no more. Every request is made on a task that the calling
//! OS thread has seized; the kernel answers ESRCH for any other, and for one that runs or has died.
use std::cell::RefCell;
use std::ffi::c_void;

use nix::Result;
use nix::errno::Errno;
use nix::libc;

use crate::arch::xsave;
use crate::thread::Rseq;

/// Requests of `include/uapi/linux/ptrace.h` that libc lacks or names for some targets only.
mod request {
    pub(super) const CONT: i64 = 7;
    pub(super) const DETACH: i64 = 17;
    pub(super) const SYSCALL: i64 = 24;
    pub(super) const SETOPTIONS: i64 = 0x4200;
    pub(super) const GETEVENTMSG: i64 = 0x4201;
    pub(super) const GETSIGINFO: i64 = 0x4202;
    pub(super) const GETREGSET: i64 = 0x4204;
    pub(super) const SETREGSET: i64 = 0x4205;
    pub(super) const SEIZE: i64 = 0x4206;
    pub(super) const INTERRUPT: i64 = 0x4207;
    pub(super) const GETSIGMASK: i64 = 0x420a;
    pub(super) const SETSIGMASK: i64 = 0x420b;
    /// Since 5.13.
    pub(super) const GET_RSEQ_CONFIGURATION: i64 = 0x420f;
    /// Since 6.4.
    pub(super) const GET_SYSCALL_USER_DISPATCH_CONFIG: i64 = 0x4211;
}

/// Options (`PTRACE_O_*`) and events (`PTRACE_EVENT_*`) of `include/uapi/linux/ptrace.h`.
pub(crate) mod option {
    pub(crate) const SYSGOOD: u64 = 1;
    pub(crate) const FORK: u64 = 1 << 1;
    pub(crate) const VFORK: u64 = 1 << 2;
    pub(crate) const CLONE: u64 = 1 << 3;
    pub(crate) const EXEC: u64 = 1 << 4;
    /// It is killed when its tracer is gone.
    pub(crate) const EXITKILL: u64 = 1 << 20;
    /// Needs `CAP_SYS_ADMIN`.
    pub(crate) const SUSPEND_SECCOMP: u64 = 1 << 21;
}

/// See [`option`].
pub(crate) mod event {
    pub(crate) const FORK: i32 = 1;
    pub(crate) const VFORK: i32 = 2;
    pub(crate) const CLONE: i32 = 3;
    pub(crate) const EXEC: i32 = 4;
    pub(crate) const STOP: i32 = 128;
}

/// Register sets of `include/uapi/linux/elf.h`.
const NT_PRSTATUS: i64 = 1;
const NT_X86_XSTATE: i64 = 0x202;
/// More than any xsave area of today (11 KiB with AMX).
const XSTATE_MAX: usize = 32 << 10;
const SIGSET_BYTES: i64 = 8;

/// How many words `struct user_regs_struct` has.
pub(crate) const REGISTERS: usize = 27;
const _: () = assert!(size_of::<libc::user_regs_struct>() == REGISTERS * size_of::<u64>());

/// Makes a request; `data` is an integer, or points to what the request reads or writes.
fn ptrace(request: i64, tid: i32, address: i64, data: *mut c_void) -> Result<i64> {
    // SAFETY: callers pass integers, or pointers to live objects as long as the request says.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_ptrace, request, i64::from(tid), address, data)
    })
}

fn plain(request: i64, tid: i32, data: u64) -> Result<()> {
    let data = usize::try_from(data).map_err(|_| Errno::EINVAL)?;
    ptrace(request, tid, 0, std::ptr::without_provenance_mut(data)).map(drop)
}

fn signal(number: i32) -> u64 {
    number.unsigned_abs().into()
}

/// Attaches, and lets it run.
pub(crate) fn seize(tid: i32, options: u64) -> Result<()> {
    plain(request::SEIZE, tid, options)
}

/// Changes the options given to [`seize`].
pub(crate) fn set_options(tid: i32, options: u64) -> Result<()> {
    plain(request::SETOPTIONS, tid, options)
}

/// Has it stop as soon as it can.
pub(crate) fn interrupt(tid: i32) -> Result<()> {
    plain(request::INTERRUPT, tid, 0)
}

/// Lets it run; from a signal-delivery-stop, with this signal (or none: 0).
pub(crate) fn resume(tid: i32, deliver: i32) -> Result<()> {
    plain(request::CONT, tid, signal(deliver))
}

/// Lets it run to the next entry to or exit from a system call.
pub(crate) fn resume_to_syscall(tid: i32) -> Result<()> {
    plain(request::SYSCALL, tid, 0)
}

/// Lets it go, with this signal from a signal-delivery-stop (or none: 0).
pub(crate) fn detach(tid: i32, deliver: i32) -> Result<()> {
    plain(request::DETACH, tid, signal(deliver))
}

/// What belongs to the event it stopped for: a new task's number.
pub(crate) fn event_message(tid: i32) -> Result<u64> {
    let mut message = 0u64;
    ptrace(request::GETEVENTMSG, tid, 0, (&raw mut message).cast())?;
    Ok(message)
}

/// Whether it handles system calls of its own by signals (`PR_SET_SYSCALL_USER_DISPATCH`).
pub(crate) fn dispatches(tid: i32) -> Result<bool> {
    /// `struct ptrace_sud_config`: mode, selector, offset, length.
    type Config = [u64; 4];
    const BYTES: i64 = 32;
    const _: () = assert!(size_of::<Config>() == 32);
    let mut config: Config = [0; 4];
    let (size, call) = (BYTES, request::GET_SYSCALL_USER_DISPATCH_CONFIG);
    match ptrace(call, tid, size, (&raw mut config).cast()) {
        Err(Errno::EIO | Errno::EINVAL) => Ok(false), // A kernel that does not know it.
        done => done.map(|_| config.first() != Some(&0)),
    }
}

/// `si_code` and `si_pid` of the signal it stopped for.
pub(crate) fn signal_sender(tid: i32) -> Result<(i32, i32)> {
    // SAFETY: a siginfo_t is integers and unions of integers and pointers: zeros are valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    ptrace(request::GETSIGINFO, tid, 0, (&raw mut info).cast())?;
    // SAFETY: every member of the union begins with initialised bytes, and si_pid is an integer.
    Ok((info.si_code, unsafe { info.si_pid() }))
}

/// The general registers, in the kernel's order.
pub(crate) fn registers(tid: i32) -> Result<[u64; REGISTERS]> {
    let mut words = [0; REGISTERS];
    let base = words.as_mut_ptr().cast();
    let mut vector = libc::iovec { iov_base: base, iov_len: size_of_val(&words) };
    ptrace(request::GETREGSET, tid, NT_PRSTATUS, (&raw mut vector).cast())?;
    Ok(words)
}

/// Changes them all at once: if we are killed meanwhile, all or none have changed.
pub(crate) fn set_registers(tid: i32, words: &[u64; REGISTERS]) -> Result<()> {
    let mut words = *words;
    let base = words.as_mut_ptr().cast();
    let mut vector = libc::iovec { iov_base: base, iov_len: size_of_val(&words) };
    ptrace(request::SETREGSET, tid, NT_PRSTATUS, (&raw mut vector).cast()).map(drop)
}

thread_local! {
    /// Room for an xsave area: to make it anew for each of a thousand threads takes longer than reading.
    static ROOM: RefCell<Vec<u8>> = RefCell::new(vec![0; XSTATE_MAX]);
}

/// The raw xsave area; without tile registers, if none is in use.
pub(crate) fn xstate(tid: i32) -> Result<Vec<u8>> {
    ROOM.with_borrow_mut(|room| {
        if let Some(length) = xsave::before_tiles()
            && let Some(room) = room.get_mut(..length)
        {
            let area = xstate_of(tid, room)?;
            if !xsave::holds_tiles(area) {
                return Ok(area.to_vec());
            }
        }
        Ok(xstate_of(tid, room)?.to_vec())
    })
}

/// As much of it as there is room for.
fn xstate_of(tid: i32, room: &mut [u8]) -> Result<&[u8]> {
    let (base, length) = (room.as_mut_ptr().cast(), room.len());
    let mut vector = libc::iovec { iov_base: base, iov_len: length };
    ptrace(request::GETREGSET, tid, NT_X86_XSTATE, (&raw mut vector).cast())?;
    Ok(room.get(..vector.iov_len).unwrap_or_default())
}

/// Sets it; nothing for none.
pub(crate) fn set_xstate(tid: i32, area: &[u8]) -> Result<()> {
    if area.is_empty() {
        return Ok(());
    }
    let mut area = xsave::whole(area);
    let mut vector = libc::iovec { iov_base: area.as_mut_ptr().cast(), iov_len: area.len() };
    ptrace(request::SETREGSET, tid, NT_X86_XSTATE, (&raw mut vector).cast()).map(drop)
}

/// Its signal mask: the one it will have again when the present call is over.
pub(crate) fn mask(tid: i32) -> Result<u64> {
    let mut mask = 0u64;
    ptrace(request::GETSIGMASK, tid, SIGSET_BYTES, (&raw mut mask).cast())?;
    Ok(mask)
}

/// Sets it.
pub(crate) fn set_mask(tid: i32, mask: u64) -> Result<()> {
    let mut mask = mask;
    ptrace(request::SETSIGMASK, tid, SIGSET_BYTES, (&raw mut mask).cast()).map(drop)
}

/// `struct ptrace_rseq_configuration` of `include/uapi/linux/ptrace.h`.
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

/// What it has registered with rseq(2), if anything. EIO or EINVAL: the kernel has no rseq(2).
pub(crate) fn rseq(tid: i32) -> Result<Option<Rseq>> {
    let mut found = RseqConfiguration::default();
    let bytes = 24;
    match ptrace(request::GET_RSEQ_CONFIGURATION, tid, bytes, (&raw mut found).cast()) {
        Err(Errno::EIO | Errno::EINVAL) => return Ok(None),
        result => result?,
    };
    let RseqConfiguration { address, size, signature, .. } = found;
    Ok((address != 0).then_some(Rseq { address, size, signature }))
}
