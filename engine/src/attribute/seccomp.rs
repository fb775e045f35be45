//! `seccomp(2)`: a thread that has given up system calls is refused for now: its filters could be
//! read and installed again, but calls made inside it would have to pass them.
use super::{Attribute, Fact, Scope, Seen, Told, missing};
use crate::error::{Cause, Result};
use crate::plan::Stage;
use crate::remote::Reply;

pub(super) struct Seccomp;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {}

const CONFINED: Cause = Cause {
    code: "seccomp:confined",
    reason: "it runs under seccomp(2)",
    remedy: "start it without its sandbox",
};

impl Attribute for Seccomp {
    const NAME: &'static str = "seccomp";
    const SCOPE: Scope = Scope::Thread;
    const TOLD: Told = Told::AsLeader(&[Fact::Seccomp]);
    const STAGE: Stage = Stage::Filters;
    const CAUSES: &'static [Cause] = &[CONFINED];
    type State = State;

    fn answer(seen: &mut Seen<'_, '_>, _: &[Reply]) -> Result<State> {
        if seen.status.take("Seccomp").ok_or_else(missing("Seccomp"))? != "0" {
            seen.obstacle("the system call filter", &CONFINED);
        }
        Ok(State {})
    }
}
