//! `/proc/PID/autogroup`: how nice a session is as a whole (sched(7)). Its members share it.
use super::{Attribute, Owner, Scope, Seen};
use crate::error::Result;
use crate::plan::Stage;
use crate::remote::Reply;

pub(super) struct Autogroup;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    #[prost(sint32, tag = "1")]
    nice: i32,
}

const FILE: &str = "autogroup";

/// `/autogroup-12 nice 5`; on a kernel without them, or outside of any, nothing is nicer.
fn read(owner: Owner) -> Result<i32> {
    let text = owner.read(FILE)?.unwrap_or_default();
    let nice = text.trim().rsplit_once(" nice ").and_then(|(_, nice)| nice.parse().ok());
    Ok(nice.unwrap_or_default())
}

impl Attribute for Autogroup {
    const NAME: &'static str = "autogroup";
    const SCOPE: Scope = Scope::Process;
    const STAGE: Stage = Stage::Process;
    type State = State;

    fn answer(seen: &mut Seen<'_, '_>, _: &[Reply]) -> Result<State> {
        Ok(State { nice: read(seen.owner)? })
    }

    fn restore_outside(state: &State, owner: Owner) -> Result<()> {
        if read(owner)? == state.nice {
            return Ok(());
        }
        owner.write(FILE, &state.nice.to_string())
    }
}
