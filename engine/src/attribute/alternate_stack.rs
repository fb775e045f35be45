//! sigaltstack(2): where a thread handles signals.
//!
//! `SS_ONSTACK` is told, not set: whether the thread is on it follows from its stack pointer.
//! Restored in the agent, whose stack pointer is elsewhere, or the kernel would refuse.
use nix::libc::SYS_sigaltstack;

use super::{Attribute, Owner, Scope, Seen, only};
use crate::error::{Error, Result};
use crate::plan::Stage;
use crate::remote::{Arg, Batch, Reply};

pub(super) struct AlternateStack;

/// `stack_t` of `include/uapi/asm-generic/signal.h` on 64-bit: pointer, flags, gap, size.
const BYTES: usize = 24;
const SS_ONSTACK: u32 = 1;
const SS_DISABLE: u32 = 2;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    #[prost(fixed64, tag = "1")]
    ss_sp: u64,
    #[prost(uint32, tag = "2")]
    ss_flags: u32,
    #[prost(uint64, tag = "3")]
    ss_size: u64,
}

impl Attribute for AlternateStack {
    const NAME: &'static str = "alternate_stack";
    const SCOPE: Scope = Scope::Thread;
    const STAGE: Stage = Stage::Threads;
    type State = State;

    fn ask(_: Owner, batch: &mut Batch) -> Result<()> {
        batch.call("sigaltstack", SYS_sigaltstack, [0.into(), Arg::Out(BYTES)]);
        Ok(())
    }

    fn answer(_: &mut Seen<'_, '_>, replies: &[Reply]) -> Result<State> {
        let reply = only(replies)?;
        reply.value()?;
        let [pointer, flags, size] = reply.out.as_chunks::<8>().0 else {
            return Err(Error::Record("alternate_stack".into(), None));
        };
        let [a, b, c, d, ..] = *flags;
        let ss_flags = u32::from_ne_bytes([a, b, c, d]) & !SS_ONSTACK;
        if ss_flags & SS_DISABLE != 0 {
            return Ok(State { ss_flags, ..State::default() });
        }
        let (ss_sp, ss_size) = (u64::from_ne_bytes(*pointer), u64::from_ne_bytes(*size));
        Ok(State { ss_sp, ss_flags, ss_size })
    }

    fn restore(state: &State, batch: &mut Batch) {
        let flags = u64::from(state.ss_flags).to_ne_bytes();
        let bytes = [state.ss_sp.to_ne_bytes(), flags, state.ss_size.to_ne_bytes()].concat();
        batch.call("sigaltstack", SYS_sigaltstack, [Arg::In(bytes), 0.into()]);
    }
}
