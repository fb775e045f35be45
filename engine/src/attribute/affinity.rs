//! `sched_setaffinity(2)`: on which processors a thread may run.
//!
//! Put back even if it is all of them: a blank was born with ours. On a machine that lacks every one
//! of its processors the call fails, and the restore says so.
use nix::errno::Errno;
use nix::libc::{SYS_sched_getaffinity, SYS_sched_setaffinity};

use super::{Attribute, Owner, Scope, Seen, Told, only};
use crate::error::{Error, Result};
use crate::plan::Stage;
use crate::remote::{Arg, Batch, Reply};

pub(super) struct Affinity;

/// Room for the largest `NR_CPUS` (8,192) a kernel can be built for.
const ROOM: usize = 1024;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    /// As the kernel gives it.
    #[prost(bytes = "vec", tag = "1")]
    cpus: Vec<u8>,
}

impl Attribute for Affinity {
    const NAME: &'static str = "affinity";
    const SCOPE: Scope = Scope::Thread;
    const TOLD: Told = Told::Outside;
    const STAGE: Stage = Stage::Threads;
    type State = State;

    fn ask(_: Owner, batch: &mut Batch) -> Result<()> {
        let room =
            i64::try_from(ROOM).map_err(|_| Error::Kernel("sched_getaffinity", Errno::E2BIG))?;
        let args = [0.into(), room.into(), Arg::Out(ROOM)];
        batch.call("sched_getaffinity", SYS_sched_getaffinity, args);
        Ok(())
    }

    fn answer(_: &mut Seen<'_, '_>, replies: &[Reply]) -> Result<State> {
        let reply = only(replies)?;
        let length = usize::try_from(reply.value()?).unwrap_or_default();
        Ok(State { cpus: reply.out.iter().copied().take(length).collect() })
    }

    fn restore(state: &State, batch: &mut Batch) {
        let length = i64::try_from(state.cpus.len()).unwrap_or(i64::MAX);
        let args = [0.into(), length.into(), Arg::In(state.cpus.clone())];
        batch.call("sched_setaffinity", SYS_sched_setaffinity, args);
    }
}
