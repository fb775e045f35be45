//! What depends on the processor: the code that runs in borrowed threads, registers, and the rules by
//! which a kernel restarts interrupted calls. `cfg(target_arch)` appears here only.
//!
//! # Safety
//! With `sys`, one of the two modules with `unsafe`: it names symbols of its own assembler.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::*;
