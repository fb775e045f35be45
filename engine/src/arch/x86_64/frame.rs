//! The frame from which `rt_sigreturn(2)` loads everything a thread has in its registers.
//!
//! Kernel: `arch/x86/kernel/signal_64.c`, `arch/x86/include/uapi/asm/sigcontext.h`. The segment
//! bases are not part of it: they are set before.
use super::xsave::HEADER;
use crate::thread::Registers;

/// `UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS`.
const UC_FLAGS: u64 = 1 | 2 | 4;
/// An alternate stack that the kernel will not take: so it leaves the thread's own alone.
const NO_STACK: u64 = 0xff;
/// `FP_XSTATE_MAGIC1`, where the legacy area has room for software.
const MAGIC1: u32 = 0x4650_5853;
/// `FP_XSTATE_MAGIC2`, right behind the extended area.
const MAGIC2: u32 = 0x4650_5845;
/// Where `struct _fpx_sw_bytes` begins in the legacy area.
const SOFTWARE: usize = 464;
/// Bytes before the xsave area: frame, signal information, alignment.
const HEAD: usize = 576;

/// The bytes of a frame at `address`, a multiple of 64; `xfeatures` are all that the processor has.
pub(crate) fn build(
    address: u64,
    registers: &Registers,
    xstate: &[u8],
    xfeatures: u64,
    blocked: u64,
) -> Vec<u8> {
    let fpstate = address + HEAD as u64;
    let [
        r15,
        r14,
        r13,
        r12,
        rbp,
        rbx,
        r11,
        r10,
        r9,
        r8,
        rax,
        rcx,
        rdx,
        rsi,
        rdi,
        _,
        rip,
        cs,
        flags,
        rsp,
        ss,
        ..,
    ] = registers.0;
    let segments = (cs & 0xffff) | (ss & 0xffff) << 48;
    let mut words = vec![0, UC_FLAGS, 0, 0, NO_STACK, 0];
    words.extend([r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp]);
    words.extend([rip, flags, segments, 0, 0, 0, 0, fpstate, 0, 0, 0, 0, 0, 0, 0, 0, blocked]);
    let mut frame: Vec<u8> = words.into_iter().flat_map(u64::to_ne_bytes).collect();
    frame.resize(HEAD, 0);
    frame.extend_from_slice(xstate);
    let size = u32::try_from(xstate.len()).unwrap_or(0);
    let software = [MAGIC1.to_ne_bytes(), (size + 4).to_ne_bytes()].concat();
    let software = [&software[..], &xfeatures.to_ne_bytes(), &size.to_ne_bytes()].concat();
    if xstate.len() > HEADER
        && let Some(at) = frame.get_mut(HEAD + SOFTWARE..HEAD + SOFTWARE + software.len())
    {
        at.copy_from_slice(&software);
    }
    frame.extend_from_slice(&MAGIC2.to_ne_bytes());
    frame
}
