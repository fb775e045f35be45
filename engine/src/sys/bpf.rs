//! bpf(2): a program that looks at all tasks, one after the other (an iterator, since 5.8).
//!
//! Needs `CAP_BPF` and `CAP_PERFMON`, or `CAP_SYS_ADMIN`. It only reads, and is gone with its descriptors.
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::{Result, libc};

/// `enum bpf_cmd` of `include/uapi/linux/bpf.h`.
mod command {
    pub(super) const PROG_LOAD: i64 = 5;
    pub(super) const LINK_CREATE: i64 = 28;
    pub(super) const ITER_CREATE: i64 = 33;
}

/// `BPF_PROG_TYPE_TRACING`.
const TRACING: u32 = 26;
/// `BPF_TRACE_ITER`.
const TRACE_ITER: u32 = 28;
/// The kernel lets only such programs write to a reader; ours, of some dozen instructions, may be used by
/// either of these.
const LICENCE: &std::ffi::CStr = c"Dual MIT/GPL";

/// `struct bpf_insn`, encoded.
pub(crate) type Instruction = [u8; 8];

/// The part of `union bpf_attr` for `BPF_PROG_LOAD`, up to the function that is attached to.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
    btf_fd: u32,
    function_record_bytes: u32,
    functions: u64,
    function_count: u32,
    line_record_bytes: u32,
    lines: u64,
    line_count: u32,
    attach_to: u32,
    attach_object: u32,
    pad: u32,
}
const _: () = assert!(size_of::<Load>() == 120);
const _: () = assert!(std::mem::offset_of!(Load, attach_to) == 108);

/// Likewise, for `BPF_LINK_CREATE`.
#[repr(C)]
struct Link {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    info: u64,
    info_bytes: u32,
    pad: u32,
}
const _: () = assert!(size_of::<Link>() == 32);

/// Which tasks a program looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Whom {
    /// Those of our PID namespace.
    All,
    /// Since 6.1.
    Thread(i32),
    /// All threads of it, or all its descriptors; since 6.1.
    Process(i32),
}

/// `union bpf_iter_link_info`, for tasks.
#[repr(C)]
struct Info {
    tid: u32,
    pid: u32,
    process: u32,
    pad: u32,
}
const INFO_BYTES: u32 = 16;
const _: () = assert!(size_of::<Info>() == 16);

/// Likewise, for `BPF_ITER_CREATE`.
#[repr(C)]
struct Iterator {
    link: u32,
    flags: u32,
}
const _: () = assert!(size_of::<Iterator>() == 8);

fn bpf<T>(command: i64, attributes: &T) -> Result<OwnedFd> {
    let (pointer, bytes) = (std::ptr::from_ref(attributes), size_of::<T>());
    // SAFETY: each command here reads `bytes` bytes of its attributes, all of them initialised (the structures
    // above have no gaps), and what they point to; it writes nothing, and makes a descriptor.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_bpf, command, pointer, bytes) })?;
    RawFd::try_from(fd).map(super::own).map_err(|_| Errno::EBADF)
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

/// Loads a program for the iterator whose function has this number in the kernel's BTF.
pub(crate) fn load(instructions: &[Instruction], function: u32) -> Result<OwnedFd> {
    let load = Load {
        kind: TRACING,
        count: u32::try_from(instructions.len()).map_err(|_| Errno::E2BIG)?,
        instructions: instructions.as_ptr().expose_provenance() as u64,
        licence: LICENCE.as_ptr().expose_provenance() as u64,
        attach_type: TRACE_ITER,
        attach_to: function,
        ..Load::default()
    };
    bpf(command::PROG_LOAD, &load)
}

/// Attaches it.
pub(crate) fn attach(program: BorrowedFd<'_>, whom: Whom) -> Result<OwnedFd> {
    let (tid, pid) = match whom {
        Whom::All => (0, 0),
        Whom::Thread(tid) => (tid.unsigned_abs(), 0),
        Whom::Process(pid) => (0, pid.unsigned_abs()),
    };
    let info = Info { tid, pid, process: 0, pad: 0 };
    let some = !matches!(whom, Whom::All);
    let link = Link {
        program: number(program),
        target: 0,
        attach_type: TRACE_ITER,
        flags: 0,
        info: if some { std::ptr::from_ref(&info).expose_provenance() as u64 } else { 0 },
        info_bytes: if some { INFO_BYTES } else { 0 },
        pad: 0,
    };
    bpf(command::LINK_CREATE, &link)
}

/// A file whose reading runs it for every task of our PID namespace, once.
pub(crate) fn iterate(link: BorrowedFd<'_>) -> Result<OwnedFd> {
    bpf(command::ITER_CREATE, &Iterator { link: number(link), flags: 0 })
}
