//! `sched_setattr(2)`: policy, nice value, real-time priority, deadline and its flags.
//!
//! The kernel's own structure is kept as bytes: it grows at its end, and says how long it is. Of
//! utilisation clamps only those are set that somebody has set.
use nix::libc::{SYS_sched_getattr, SYS_sched_setattr};

use super::{Attribute, Owner, Scope, Seen, Told, only};
use crate::error::{Error, Result};
use crate::plan::Stage;
use crate::remote::{Arg, Batch, Reply};

pub(super) struct Scheduler;

/// `SCHED_ATTR_SIZE_VER0` of `include/uapi/linux/sched/types.h`: up to `sched_period`.
const VERSION_0: u32 = 48;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    /// `struct sched_attr` without its size.
    #[prost(bytes = "vec", tag = "1")]
    attr: Vec<u8>,
}

impl Attribute for Scheduler {
    const NAME: &'static str = "scheduler";
    const SCOPE: Scope = Scope::Thread;
    const TOLD: Told = Told::Outside;
    const STAGE: Stage = Stage::Threads;
    type State = State;

    fn ask(_: Owner, batch: &mut Batch) -> Result<()> {
        let args = [0.into(), Arg::Out(VERSION_0 as usize), i64::from(VERSION_0).into(), 0.into()];
        batch.call("sched_getattr", SYS_sched_getattr, args);
        Ok(())
    }

    fn answer(_: &mut Seen<'_, '_>, replies: &[Reply]) -> Result<State> {
        let reply = only(replies)?;
        reply.value()?;
        let attr = reply.out.get(size_of::<u32>()..);
        Ok(State { attr: attr.ok_or_else(|| Error::Record("scheduler".into(), None))?.to_vec() })
    }

    fn restore(state: &State, batch: &mut Batch) {
        let attr = [VERSION_0.to_ne_bytes().as_slice(), &state.attr].concat();
        let args = [0.into(), Arg::In(attr), 0.into()];
        batch.call("sched_setattr", SYS_sched_setattr, args);
    }
}
