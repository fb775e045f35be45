//! `PR_SET_SPECULATION_CTRL`: mitigations that a thread asked for.
use nix::libc::{PR_GET_SPECULATION_CTRL, PR_SET_SPECULATION_CTRL, SYS_prctl};

use super::{Attribute, Fact, Owner, Scope, Seen, Told};
use crate::error::Result;
use crate::plan::Stage;
use crate::remote::{Batch, Reply};

pub(super) struct Speculation;

/// `PR_SPEC_STORE_BYPASS`, `PR_SPEC_INDIRECT_BRANCH`, `PR_SPEC_L1D_FLUSH` of
/// `include/uapi/linux/prctl.h`.
const MISFEATURES: [i64; 3] = [0, 1, 2];
/// `PR_SPEC_PRCTL`: the thread may choose.
const MAY_CHOOSE: i64 = 1;
/// `PR_SPEC_DISABLE | PR_SPEC_FORCE_DISABLE | PR_SPEC_DISABLE_NOEXEC`.
const CHOSEN: i64 = 4 | 8 | 16;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    /// By misfeature; zero where nothing was chosen.
    #[prost(int64, repeated, tag = "1")]
    chosen: Vec<i64>,
}

impl Attribute for Speculation {
    const NAME: &'static str = "speculation";
    const SCOPE: Scope = Scope::Thread;
    const TOLD: Told = Told::AsLeader(&[Fact::AtomicFlags]);
    const STAGE: Stage = Stage::Threads;
    type State = State;

    fn ask(_: Owner, batch: &mut Batch) -> Result<()> {
        for which in MISFEATURES {
            batch.call("prctl", SYS_prctl, [PR_GET_SPECULATION_CTRL.into(), which.into()]);
        }
        Ok(())
    }

    fn answer(_: &mut Seen<'_, '_>, replies: &[Reply]) -> Result<State> {
        let chosen = |reply: &Reply| match reply.value() {
            Ok(value) if value & MAY_CHOOSE != 0 => value & CHOSEN,
            _ => 0,
        };
        Ok(State { chosen: replies.iter().map(chosen).collect() })
    }

    fn restore(state: &State, batch: &mut Batch) {
        for (which, chosen) in MISFEATURES.iter().zip(&state.chosen) {
            if *chosen != 0 {
                let args = [PR_SET_SPECULATION_CTRL.into(), (*which).into(), (*chosen).into()];
                batch.call("prctl", SYS_prctl, args);
            }
        }
    }
}
