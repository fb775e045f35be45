//! Signals that have been sent and not yet delivered: a queue for the process, one for each thread.
//!
//! Read by ptrace(2) with all that they carry (`PTRACE_PEEKSIGINFO`); put back by the owner itself,
//! who alone may queue any `si_code`. Late, when all signals are blocked in it and its actions are
//! set: a signal that it ignores and blocks stays pending, as it was.
use nix::libc::{SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo};

use super::{Attribute, Scope, Seen, Told};
use prost::Message;

use crate::error::{Cause, Error, Result, kernel};
use crate::plan::Stage;
use crate::remote::{Arg, Batch, Reply};
use crate::sys::siginfo::{self, Queue};

const OVER_LIMIT: Cause = Cause {
    code: "pending_signals:over-limit",
    reason: "more of them wait than its limit would let be queued again",
    remedy: "raise its RLIMIT_SIGPENDING for the checkpoint (prlimit --sigpending)",
};

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
    fn of(seen: &mut Seen<'_, '_>, queue: Queue) -> Result<Self> {
        let owner = seen.owner;
        let signals = siginfo::pending(owner.tid().0, queue).map_err(kernel("ptrace"))?;
        // The status that was seen was read before the loan, whose marker counts too.
        if !signals.is_empty() && over_limit(&owner.read("status")?.unwrap_or_default()) {
            seen.obstacle("pending signals", &OVER_LIMIT);
        }
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

/// Whether its user has more signals waiting than it could queue: the limit was lowered since.
fn over_limit(status: &str) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("SigQ:"));
    let numbers = line.and_then(|line| line.trim().split_once('/'));
    let numbers = numbers.and_then(|(used, limit)| Some((used.parse().ok()?, limit.parse().ok()?)));
    numbers.is_some_and(|(used, limit): (u64, u64)| used > limit)
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
    const CAUSES: &'static [Cause] = &[OVER_LIMIT];
    type State = State;

    fn answer(seen: &mut Seen<'_, '_>, _: &[Reply]) -> Result<State> {
        State::of(seen, Queue::Shared)
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
    const TOLD: Told = Told::Outside;
    const STAGE: Stage = Stage::Final;
    type State = State;

    fn answer(seen: &mut Seen<'_, '_>, _: &[Reply]) -> Result<State> {
        if seen.quiet {
            let owner = seen.owner;
            return Ok(State { pid: owner.pid().0, tid: owner.tid().0, signals: Vec::new() });
        }
        State::of(seen, Queue::Private)
    }

    fn restore(state: &State, batch: &mut Batch) {
        for (number, info) in state.each() {
            let args = [state.pid.into(), state.tid.into(), number.into(), info];
            batch.call("rt_tgsigqueueinfo", SYS_rt_tgsigqueueinfo, args);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_below_what_waits_is_noticed() {
        assert!(over_limit("Threads:\t1\nSigQ:\t10/0\n"));
        assert!(!over_limit("SigQ:\t10/96606\n") && !over_limit("SigQ:\t3/3\n"));
    }
}
