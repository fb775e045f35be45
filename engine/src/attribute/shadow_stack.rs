//! Shadow stacks (`Documentation/arch/x86/shstk.rst`, since 6.6): hidden copies of return addresses.
//! A restore would have to write them, which only a tracer may; refused for now.
use super::{Attribute, Fact, Scope, Seen, Told};
use crate::error::{Cause, Result};
use crate::plan::Stage;
use crate::remote::Reply;

pub(super) struct ShadowStack;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {}

const IN_USE: Cause = Cause {
    code: "shadow_stack:in-use",
    reason: "it runs with a shadow stack",
    remedy: "start it with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off",
};

impl Attribute for ShadowStack {
    const NAME: &'static str = "shadow_stack";
    const SCOPE: Scope = Scope::Thread;
    const TOLD: Told = Told::AsLeader(&[Fact::ThreadFeatures]);
    const STAGE: Stage = Stage::Threads;
    const CAUSES: &'static [Cause] = &[IN_USE];
    type State = State;

    fn answer(seen: &mut Seen<'_, '_>, _: &[Reply]) -> Result<State> {
        if seen.status.take("x86_Thread_features").is_some_and(|features| !features.is_empty()) {
            seen.obstacle("the shadow stack", &IN_USE);
        }
        Ok(State {})
    }
}
