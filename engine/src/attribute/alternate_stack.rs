//! sigaltstack(2): where a thread handles signals.
//!
//! `SS_ONSTACK` is told, not set: whether the thread is on it follows from its stack pointer.
//! Restored in the agent, whose stack pointer is elsewhere, or the kernel would refuse.
use nix::libc::SYS_sigaltstack;

use super::{Attribute, Owner, Scope, Seen, Told, only};
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
    sp: u64,
    #[prost(uint32, tag = "2")]
    flags: u32,
    #[prost(uint64, tag = "3")]
    size: u64,
}

impl Attribute for AlternateStack {
    const NAME: &'static str = "alternate_stack";
    const SCOPE: Scope = Scope::Thread;
    const TOLD: Told = Told::Outside;
    const STAGE: Stage = Stage::Threads;
    type State = State;

    fn ask(_: Owner, batch: &mut Batch) -> Result<()> {
        batch.call("sigaltstack", SYS_sigaltstack, [0.into(), Arg::Out(BYTES)]);
        Ok(())
    }

    fn answer(_: &mut Seen<'_, '_>, replies: &[Reply]) -> Result<State> {
        let reply = only(replies)?;
        reply.value()?;
        let [pointer, word, length] = reply.out.as_chunks::<8>().0 else {
            return Err(Error::Record("alternate_stack".into(), None));
        };
        let [a, b, c, d, ..] = *word;
        let flags = u32::from_ne_bytes([a, b, c, d]) & !SS_ONSTACK;
        if flags & SS_DISABLE != 0 {
            return Ok(State { flags, ..State::default() });
        }
        let (sp, size) = (u64::from_ne_bytes(*pointer), u64::from_ne_bytes(*length));
        Ok(State { sp, flags, size })
    }

    fn restore(state: &State, batch: &mut Batch) {
        let flags = u64::from(state.flags).to_ne_bytes();
        let bytes = [state.sp.to_ne_bytes(), flags, state.size.to_ne_bytes()].concat();
        batch.call("sigaltstack", SYS_sigaltstack, [Arg::In(bytes), 0.into()]);
    }
}
