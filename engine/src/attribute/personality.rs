//! personality(2): execution domain and its flags (`ADDR_NO_RANDOMIZE`, `READ_IMPLIES_EXEC`...).
//!
//! Put back after all mapping: `READ_IMPLIES_EXEC` would change what mmap(2) does. The kernel keeps
//! one for each thread, copied at clone(2).
use nix::libc::SYS_personality;

use super::{Attribute, Fact, Owner, Scope, Seen, Told, only};
use crate::error::Result;
use crate::plan::Stage;
use crate::remote::{Batch, Reply};

pub(super) struct Personality;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    #[prost(int64, tag = "1")]
    persona: i64,
}

/// Asks without setting.
const QUERY: i64 = 0xffff_ffff;

impl Attribute for Personality {
    const NAME: &'static str = "personality";
    const SCOPE: Scope = Scope::Thread;
    const TOLD: Told = Told::AsLeader(&[Fact::Personality]);
    const STAGE: Stage = Stage::Threads;
    type State = State;

    fn ask(_: Owner, batch: &mut Batch) -> Result<()> {
        batch.call("personality", SYS_personality, [QUERY.into()]);
        Ok(())
    }

    fn answer(_: &mut Seen<'_, '_>, replies: &[Reply]) -> Result<State> {
        Ok(State { persona: only(replies)?.value()? })
    }

    fn restore(state: &State, batch: &mut Batch) {
        batch.call("personality", SYS_personality, [state.persona.into()]);
    }
}
