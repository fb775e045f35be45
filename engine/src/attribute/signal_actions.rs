//! sigaction(2): what the process does about each signal. Its threads share it.
use nix::libc::{SIGKILL, SIGSTOP, SYS_rt_sigaction};

use super::{Attribute, Owner, Scope, Seen};
use crate::error::Result;
use crate::plan::Stage;
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
        let ignored = [&1u64.to_ne_bytes()[..], &[0; BYTES - 8]].concat();
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
