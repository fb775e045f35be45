//! sigaction(2): what the process does about each signal. Its threads share it.
use nix::libc::{SIGKILL, SIGSTOP, SYS_rt_sigaction};

use super::{Attribute, Owner, Scope, Seen};
use crate::error::Result;
use crate::plan::Stage;
use crate::procfs::Fields;
use crate::remote::{Arg, Batch, Reply};

pub(super) struct SignalActions;

/// `_NSIG`.
const SIGNALS: i32 = 64;
/// `struct kernel_sigaction` on x86-64: handler, flags, restorer, mask.
const BYTES: usize = 32;
/// `sizeof(sigset_t)`, which the call wants to hear.
const MASK_BYTES: i64 = 8;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    /// From signal 1 on, as the kernel gives them.
    #[prost(bytes = "vec", repeated, tag = "1")]
    actions: Vec<Vec<u8>>,
}

/// Where no handler is: a zombie's are never called, and only that it had some is seen.
const SOMEWHERE: u64 = 0x1000;
/// `SIG_IGN`.
const IGNORE: u64 = 1;

/// What is still told of a zombie.
pub(super) fn of_zombie(status: &mut Fields<'_>) -> State {
    let mut set = |key| status.take_number(key, 16).unwrap_or(0);
    let (ignored, caught) = (set("SigIgn"), set("SigCgt"));
    let action = |signal: i32| {
        let is_in = |set: u64| set >> (signal - 1) & 1 == 1;
        let handler = if is_in(caught) { SOMEWHERE } else { u64::from(is_in(ignored)) * IGNORE };
        [&handler.to_ne_bytes()[..], &[0; BYTES - 8]].concat()
    };
    State { actions: (1..=SIGNALS).map(action).collect() }
}

impl Attribute for SignalActions {
    const NAME: &'static str = "signal_actions";
    const SCOPE: Scope = Scope::Process;
    const STAGE: Stage = Stage::Process;
    type State = State;

    fn ask(_: Owner, batch: &mut Batch) -> Result<()> {
        for signal in 1..=SIGNALS {
            let args = [signal.into(), 0.into(), Arg::Out(BYTES), MASK_BYTES.into()];
            batch.call("rt_sigaction", SYS_rt_sigaction, args);
        }
        Ok(())
    }

    fn answer(_: &mut Seen<'_, '_>, replies: &[Reply]) -> Result<State> {
        let action = |reply: &Reply| reply.value().map(|_| reply.out.clone());
        Ok(State { actions: replies.iter().map(action).collect::<Result<_>>()? })
    }

    /// All of them: a blank was born with ours. Two can't be set, and are never anything else. Each
    /// is ignored first, which forgets what came while the blank waited: that a child has ended.
    fn restore(state: &State, batch: &mut Batch) {
        let ignored = [&IGNORE.to_ne_bytes()[..], &[0; BYTES - 8]].concat();
        for (signal, action) in (1..).zip(&state.actions) {
            if signal == SIGKILL || signal == SIGSTOP {
                continue;
            }
            for action in [&ignored, action] {
                let args = [signal.into(), Arg::In(action.clone()), 0.into(), MASK_BYTES.into()];
                batch.call("rt_sigaction", SYS_rt_sigaction, args);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zombie_is_seen_to_have_had_handlers() {
        let mut status = Fields::parse("SigIgn:\t0000000000001000\nSigCgt:\t8000000000000002\n");
        let state = of_zombie(&mut status);
        let handler = |signal: usize| state.actions[signal - 1][..8].to_vec();
        let expected = |value: u64| value.to_ne_bytes().to_vec();
        assert_eq!((handler(2), handler(64)), (expected(SOMEWHERE), expected(SOMEWHERE)));
        assert_eq!((handler(13), handler(1)), (expected(IGNORE), expected(0)));
    }
}
