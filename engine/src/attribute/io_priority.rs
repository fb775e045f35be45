//! `ioprio_set(2)`: class and level of a thread's disk requests.
use nix::libc::{SYS_ioprio_get, SYS_ioprio_set};

use super::{Attribute, Owner, Scope, Seen, Told, if_known, only};
use crate::error::Result;
use crate::plan::Stage;
use crate::remote::{Batch, Reply};

pub(super) struct IoPriority;

/// `IOPRIO_WHO_PROCESS` of `include/uapi/linux/ioprio.h`: this thread.
const WHO_PROCESS: i64 = 1;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    /// Class and data; without a class, it follows the nice value, and there are only hints.
    #[prost(int64, tag = "1")]
    priority: i64,
}

/// `IOPRIO_CLASS_SHIFT`: no class is the default, whatever level the kernel derives for it.
const CLASS_SHIFT: u32 = 13;
/// `IOPRIO_NR_LEVELS`.
const LEVELS: i64 = 8;

impl Attribute for IoPriority {
    const NAME: &'static str = "io_priority";
    const SCOPE: Scope = Scope::Thread;
    const TOLD: Told = Told::Outside;
    const STAGE: Stage = Stage::Threads;
    type State = State;

    fn ask(_: Owner, batch: &mut Batch) -> Result<()> {
        batch.call("ioprio_get", SYS_ioprio_get, [WHO_PROCESS.into(), 0.into()]);
        Ok(())
    }

    fn answer(_: &mut Seen<'_, '_>, replies: &[Reply]) -> Result<State> {
        let priority = if_known(only(replies)?)?.unwrap_or_default();
        let derived = if priority >> CLASS_SHIFT == 0 { priority % LEVELS } else { 0 };
        Ok(State { priority: priority - derived })
    }

    fn restore(state: &State, batch: &mut Batch) {
        if state.priority != 0 {
            let args = [WHO_PROCESS.into(), 0.into(), state.priority.into()];
            batch.call("ioprio_set", SYS_ioprio_set, args);
        }
    }
}
