//! membarrier(2): what the address space registered for. Without it the program's expedited
//! barriers would fail with `EPERM` after a restore.
//!
//! Kernel: `kernel/sched/membarrier.c`; `MEMBARRIER_CMD_GET_REGISTRATIONS` since 6.3. Before, each
//! barrier is tried: an unregistered one is refused and does nothing.
use nix::libc::SYS_membarrier;

use super::{Attribute, Owner, Scope, Seen};
use crate::error::{Error, Result};
use crate::plan::Stage;
use crate::remote::{Batch, Reply};

pub(super) struct Membarrier;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    /// Commands to make again.
    #[prost(int64, repeated, tag = "1")]
    registrations: Vec<i64>,
}

/// `include/uapi/linux/membarrier.h`: a private barrier, and the registration it needs. The first is
/// fast, and harmless to make.
const PRIVATE: [(i64, i64); 3] = [(1 << 3, 1 << 4), (1 << 5, 1 << 6), (1 << 7, 1 << 8)];
/// `MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED`: can't be tried, only asked.
const REGISTER_GLOBAL: i64 = 1 << 2;
/// `MEMBARRIER_CMD_GET_REGISTRATIONS`.
const GET_REGISTRATIONS: i64 = 1 << 9;

impl Attribute for Membarrier {
    const NAME: &'static str = "membarrier";
    const SCOPE: Scope = Scope::Process;
    const STAGE: Stage = Stage::Process;
    type State = State;

    fn ask(_: Owner, batch: &mut Batch) -> Result<()> {
        let tries = PRIVATE.iter().map(|(barrier, _)| *barrier);
        for command in [GET_REGISTRATIONS].into_iter().chain(tries) {
            batch.call("membarrier", SYS_membarrier, [command.into(), 0.into()]);
        }
        Ok(())
    }

    fn answer(_: &mut Seen<'_, '_>, replies: &[Reply]) -> Result<State> {
        let Some((asked, tried)) = replies.split_first() else {
            return Err(Error::Record("membarrier".into(), None));
        };
        let known = asked.value().ok();
        let global = known.filter(|mask| mask & REGISTER_GLOBAL != 0).map(|_| REGISTER_GLOBAL);
        let private = PRIVATE.iter().zip(tried).filter(|((_, register), reply)| {
            known.map_or(reply.value().is_ok(), |mask| mask & register != 0)
        });
        let private = private.map(|((_, register), _)| *register);
        Ok(State { registrations: global.into_iter().chain(private).collect() })
    }

    fn restore(state: &State, batch: &mut Batch) {
        for command in &state.registrations {
            batch.call("membarrier", SYS_membarrier, [(*command).into(), 0.into()]);
        }
    }
}
