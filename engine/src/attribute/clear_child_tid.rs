//! `set_tid_address(2)`: where the kernel writes a zero, and wakes a futex, when the thread ends.
//! `pthread_join(3)` waits for it.
use nix::libc::{PR_GET_TID_ADDRESS, SYS_prctl, SYS_set_tid_address};

use super::{Attribute, Owner, Scope, Seen, Told, only, word};
use crate::error::Result;
use crate::plan::Stage;
use crate::remote::{Arg, Batch, Reply};

pub(super) struct ClearChildTid;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    #[prost(fixed64, tag = "1")]
    clear_tid_addr: u64,
}

impl Attribute for ClearChildTid {
    const NAME: &'static str = "clear_child_tid";
    const SCOPE: Scope = Scope::Thread;
    const TOLD: Told = Told::Outside;
    const STAGE: Stage = Stage::Threads;
    type State = State;

    /// Needs `CONFIG_CHECKPOINT_RESTORE`, as all of restoring does.
    fn ask(_: Owner, batch: &mut Batch) -> Result<()> {
        batch.call("prctl", SYS_prctl, [PR_GET_TID_ADDRESS.into(), Arg::Out(size_of::<u64>())]);
        Ok(())
    }

    fn answer(_: &mut Seen<'_, '_>, replies: &[Reply]) -> Result<State> {
        Ok(State { clear_tid_addr: word(only(replies)?)? })
    }

    fn restore(state: &State, batch: &mut Batch) {
        let address = state.clear_tid_addr.cast_signed();
        batch.call("set_tid_address", SYS_set_tid_address, [address.into()]);
    }
}
