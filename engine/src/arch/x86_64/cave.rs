//! The cave: code and context for a borrowed thread, as bytes to be put into it.
//!
//! The assembler is `cave.s`; this file gives it the kernel's numbers and knows where its labels are.
//! It lives in read-only data and is never run here.
use std::arch::global_asm;

use nix::libc;

use super::registers::RegisterFile;
use crate::remote::area::{Control, Request, flag};

/// `sizeof(sigset_t)` of the kernel (`include/uapi/asm-generic/signal.h`: 64 signals).
const SIGSET_BYTES: usize = 8;

global_asm!(
    include_str!("cave.s"),
    RT_SIGPROCMASK = const libc::SYS_rt_sigprocmask,
    SIG_SETMASK = const libc::SIG_SETMASK,
    SIGSET_BYTES = const SIGSET_BYTES,
    MMAP = const libc::SYS_mmap,
    MUNMAP = const libc::SYS_munmap,
    GETPID = const libc::SYS_getpid,
    GETTID = const libc::SYS_gettid,
    TGKILL = const libc::SYS_tgkill,
    PROT_READ_WRITE = const libc::PROT_READ | libc::PROT_WRITE,
    MAP_PRIVATE_ANONYMOUS_FIXED_NOREPLACE = const
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
    CONTROL_COUNT = const Control::COUNT,
    CONTROL_REQUESTS = const Control::REQUESTS,
    REQUEST_NUMBER = const Request::NUMBER,
    REQUEST_ARGS = const Request::ARGS,
    REQUEST_RESULT = const Request::RESULT,
    REQUEST_STORE = const Request::STORE,
    REQUEST_FLAGS = const Request::FLAGS,
    REQUEST_CHILD = const Request::CHILD,
    REQUEST_BYTES = const Request::BYTES,
    FLAG_CHILD = const flag::CHILD,
);

unsafe extern "C" {
    static snapd_cave: u8;
    static snapd_cave_enter: u8;
    static snapd_cave_told: u8;
    static snapd_cave_finish: u8;
    static snapd_cave_context: u8;
    static snapd_cave_end: u8;
}

/// The blob, and where in it things are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cave {
    /// Code and an empty context.
    pub(crate) bytes: &'static [u8],
    /// A loan begins here.
    pub(crate) enter: u64,
    /// Behind the last call before the marker.
    pub(crate) told: u64,
    /// A loan ends here.
    pub(crate) finish: u64,
    /// The context.
    pub(crate) context: usize,
}

/// How every cave of this version begins.
#[cfg(test)]
pub(crate) const MAGIC: &[u8; 16] = b"snapd cave v1\n\0\0";
/// How every cave of any version begins.
pub(crate) const MAGIC_ANY: &[u8; 12] = b"snapd cave v";

/// The blob.
pub(crate) fn cave() -> Cave {
    let start = &raw const snapd_cave;
    let offset = |label: *const u8| label.addr() - start.addr();
    let length = offset(&raw const snapd_cave_end);
    // SAFETY: both labels belong to one section of `cave.s`, the second behind the first; nothing
    // writes to it, for it is read-only data.
    let bytes = unsafe { std::slice::from_raw_parts(start, length) };
    let label = |label: *const u8| offset(label) as u64;
    Cave {
        bytes,
        enter: label(&raw const snapd_cave_enter),
        told: label(&raw const snapd_cave_told),
        finish: label(&raw const snapd_cave_finish),
        context: offset(&raw const snapd_cave_context),
    }
}

/// What the way home restores, and what it needs for it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Context {
    /// Where the thread goes on, already corrected for interrupted calls.
    pub(crate) registers: RegisterFile,
    /// Its signal mask.
    pub(crate) mask: u64,
    /// What is blocked while it is on loan.
    pub(crate) blocked: u64,
    /// Where the area is.
    pub(crate) area: u64,
    /// Its length.
    pub(crate) area_bytes: u64,
    /// The signal that ends a batch; none if the tracer follows system calls instead.
    pub(crate) marker: Option<i32>,
}

impl Cave {
    /// The blob with its context filled in.
    pub(crate) fn filled(&self, context: &Context) -> Vec<u8> {
        let mut words = context.registers.way_home().to_vec();
        words.extend([context.mask, context.blocked, context.area, context.area_bytes]);
        words.push(context.marker.map_or(0, i32::unsigned_abs).into());
        let code = self.bytes.iter().take(self.context).copied();
        code.chain(words.iter().flat_map(|word| word.to_ne_bytes())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blob_begins_with_its_magic_and_extent_and_ends_with_its_context() {
        let cave = cave();
        assert!(cave.bytes.starts_with(MAGIC) && MAGIC.starts_with(MAGIC_ANY));
        assert_eq!(cave.bytes[16..24], (cave.bytes.len() as u64).to_ne_bytes());
        assert_eq!(cave.filled(&Context::default()).len(), cave.bytes.len());
    }

    /// It has to fit behind the vdso: 1,487 bytes are free there on Linux 6.18.
    #[test]
    fn the_blob_is_small() {
        assert!(cave().bytes.len() <= 768, "{}", cave().bytes.len());
    }
}
