//! Signals that have been sent and not yet delivered: a queue for the process, one for each thread.
//!
//! Read by ptrace(2) with all that they carry (`PTRACE_PEEKSIGINFO`); put back by the owner itself,
//! who alone may queue any `si_code`. Late, when all signals are blocked in it and its actions are
//! set: a signal that it ignores and blocks stays pending, as it was.
use nix::libc::{SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo};

use super::{Attribute, Owner, Scope, Seen};
use prost::Message;

use crate::error::{Error, Result, kernel};
use crate::plan::Stage;
use crate::remote::{Arg, Batch, Reply};
use crate::sys::siginfo::{self, Queue};

/// Sent to the process.
pub(super) struct Shared;
/// Sent to one thread.
pub(super) struct Private;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    /// To whom they are queued.
    #[prost(int32, tag = "1")]
    pid: i32,
    #[prost(int32, tag = "2")]
    tid: i32,
    /// `siginfo_t`, in the order of the queue.
    #[prost(bytes = "vec", repeated, tag = "3")]
    signals: Vec<Vec<u8>>,
}

impl State {
    fn of(owner: Owner, queue: Queue) -> Result<Self> {
        let signals = siginfo::pending(owner.tid().0, queue).map_err(kernel("ptrace"))?;
        Ok(Self { pid: owner.pid().0, tid: owner.tid().0, signals })
    }

    /// Each with its number, the first field of `siginfo_t`.
    fn each(&self) -> impl Iterator<Item = (i32, Arg)> {
        let numbered = |info: &Vec<u8>| {
            let number = info.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
            (number.unwrap_or_default(), Arg::In(info.clone()))
        };
        self.signals.iter().map(numbered)
    }
}

/// Whether a record of [`Shared`] has this signal.
pub(super) fn has(record: &[u8], signal: i32) -> Result<bool> {
    let state = State::decode(record);
    let state = state.map_err(|source| Error::Record(Shared::NAME.into(), Some(source)))?;
    Ok(state.each().any(|(number, _)| number == signal))
}

impl Attribute for Shared {
    const NAME: &'static str = "pending_signals";
    const SCOPE: Scope = Scope::Process;
    const STAGE: Stage = Stage::Final;
    type State = State;

    fn answer(seen: &mut Seen<'_, '_>, _: &[Reply]) -> Result<State> {
        State::of(seen.owner, Queue::Shared)
    }

    fn restore(state: &State, batch: &mut Batch) {
        for (number, info) in state.each() {
            let args = [state.pid.into(), number.into(), info];
            batch.call("rt_sigqueueinfo", SYS_rt_sigqueueinfo, args);
        }
    }
}

impl Attribute for Private {
    const NAME: &'static str = "pending_thread_signals";
    const SCOPE: Scope = Scope::Thread;
    const STAGE: Stage = Stage::Final;
    type State = State;

    fn answer(seen: &mut Seen<'_, '_>, _: &[Reply]) -> Result<State> {
        State::of(seen.owner, Queue::Private)
    }

    fn restore(state: &State, batch: &mut Batch) {
        for (number, info) in state.each() {
            let args = [state.pid.into(), state.tid.into(), number.into(), info];
            batch.call("rt_tgsigqueueinfo", SYS_rt_tgsigqueueinfo, args);
        }
    }
}
