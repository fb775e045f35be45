//! `/proc/PID/oom_score_adj`: how readily the kernel ends it when memory runs out.
//!
//! Lowering it takes `CAP_SYS_RESOURCE`; so it is written only where it differs.
use super::{Attribute, Owner, Scope, Seen};
use crate::error::{Error, Result};
use crate::plan::Stage;
use crate::remote::Reply;

pub(super) struct OomScoreAdj;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    #[prost(sint32, tag = "1")]
    adjustment: i32,
}

const FILE: &str = "oom_score_adj";

fn read(owner: Owner) -> Result<i32> {
    let text = owner.read(FILE)?.unwrap_or_default();
    text.trim().parse().map_err(|_| Error::Record(FILE.into(), None))
}

impl Attribute for OomScoreAdj {
    const NAME: &'static str = "oom_score_adj";
    const SCOPE: Scope = Scope::Process;
    const STAGE: Stage = Stage::Process;
    type State = State;

    fn answer(seen: &mut Seen<'_, '_>, _: &[Reply]) -> Result<State> {
        Ok(State { adjustment: read(seen.owner)? })
    }

    fn restore_outside(state: &State, owner: Owner) -> Result<()> {
        if read(owner)? == state.adjustment {
            return Ok(());
        }
        owner.write(FILE, &state.adjustment.to_string())
    }
}
