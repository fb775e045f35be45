//! `set_robust_list(2)`: the futexes the kernel releases when the thread dies.
use nix::libc::{SYS_get_robust_list, SYS_set_robust_list};

use super::{Attribute, Owner, Scope, Seen, Told, only};
use crate::error::{Error, Result};
use crate::plan::Stage;
use crate::remote::{Arg, Batch, Reply};

pub(super) struct RobustList;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    #[prost(fixed64, tag = "1")]
    head: u64,
    /// Length of the head, not of the list: the kernel takes one value only.
    #[prost(uint64, tag = "2")]
    head_bytes: u64,
}

impl Attribute for RobustList {
    const NAME: &'static str = "robust_list";
    const SCOPE: Scope = Scope::Thread;
    const TOLD: Told = Told::Outside;
    const STAGE: Stage = Stage::Threads;
    type State = State;

    fn ask(_: Owner, batch: &mut Batch) -> Result<()> {
        let args = [0.into(), Arg::Out(size_of::<u64>()), Arg::Out(size_of::<u64>())];
        batch.call("get_robust_list", SYS_get_robust_list, args);
        Ok(())
    }

    fn answer(_: &mut Seen<'_, '_>, replies: &[Reply]) -> Result<State> {
        let reply = only(replies)?;
        reply.value()?;
        match reply.out.as_chunks().0 {
            [head, bytes] => Ok(State {
                head: u64::from_ne_bytes(*head),
                head_bytes: u64::from_ne_bytes(*bytes),
            }),
            _ => Err(Error::Record("robust_list".into(), None)),
        }
    }

    fn restore(state: &State, batch: &mut Batch) {
        let (head, bytes) = (state.head.cast_signed(), state.head_bytes.cast_signed());
        batch.call("set_robust_list", SYS_set_robust_list, [head.into(), bytes.into()]);
    }
}
