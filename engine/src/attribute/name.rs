//! `PR_SET_NAME`: what ps(1) and top(1) show, one for each thread.
use nix::libc::{PR_GET_NAME, PR_SET_NAME, SYS_prctl};

use super::{Attribute, Owner, Scope, Seen, Told, only};
use crate::error::Result;
use crate::plan::Stage;
use crate::remote::{Arg, Batch, Reply};

pub(super) struct Name;

/// `TASK_COMM_LEN` of `include/linux/sched.h`, the closing zero included.
const LENGTH: usize = 16;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    /// Any bytes, without the closing zero.
    #[prost(bytes = "vec", tag = "1")]
    comm: Vec<u8>,
}

impl Attribute for Name {
    const NAME: &'static str = "name";
    const SCOPE: Scope = Scope::Thread;
    const TOLD: Told = Told::Outside;
    const STAGE: Stage = Stage::Threads;
    type State = State;

    fn ask(_: Owner, batch: &mut Batch) -> Result<()> {
        batch.call("prctl", SYS_prctl, [PR_GET_NAME.into(), Arg::Out(LENGTH)]);
        Ok(())
    }

    fn answer(_: &mut Seen<'_, '_>, replies: &[Reply]) -> Result<State> {
        let reply = only(replies)?;
        reply.value()?;
        Ok(State { comm: reply.out.iter().copied().take_while(|byte| *byte != 0).collect() })
    }

    fn restore(state: &State, batch: &mut Batch) {
        let name = [state.comm.as_slice(), &[0]].concat();
        batch.call("prctl", SYS_prctl, [PR_SET_NAME.into(), Arg::In(name)]);
    }
}
