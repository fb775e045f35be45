//! What a tracer reads of a thread from outside: registers, FPU state, signal mask.
//!
//! All else that a thread has is an attribute ([`crate::attribute`]).

/// The general registers in the kernel's own order (`struct user_regs_struct`, 27 words), already
/// corrected for resuming elsewhere: a call that was interrupted is to be made again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Registers(pub [u64; 27]);

/// rseq(2): where the thread registered its area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rseq {
    /// Address of `struct rseq`.
    pub address: u64,
    /// Length it was registered with.
    pub size: u32,
    /// Signature before abort handlers.
    pub signature: u32,
}

/// One thread.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Thread {
    /// General registers, segment bases included.
    pub registers: Registers,
    /// The raw xsave area, as `PTRACE_GETREGSET(NT_X86_XSTATE)` gave it.
    pub xstate: Vec<u8>,
    /// Blocked signals, all 64.
    pub blocked: u64,
    /// Its rseq area, if registered.
    pub rseq: Option<Rseq>,
}
