//! A local descriptor table (`modify_ldt(2)`), as emulators of old systems have: refused.
//!
//! Kernel: `arch/x86/kernel/ldt.c`. Reading it tells nothing of a program that has none.
use nix::libc::SYS_modify_ldt;

use super::{Attribute, Owner, Scope, Seen, only};
use crate::error::{Cause, Error, Result};
use crate::plan::Stage;
use crate::remote::{Arg, Batch, Reply};
use nix::errno::Errno;

pub(super) struct Segments;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {}

const IN_USE: Cause = Cause {
    code: "segments:in-use",
    reason: "it has segments of its own by modify_ldt(2)",
    remedy: "none: such a program cannot be saved yet",
};
/// `modify_ldt(0, ...)` reads the table.
const READ: i64 = 0;
/// Enough to tell whether there is any.
const ENTRY_BYTES: usize = 8;

impl Attribute for Segments {
    const NAME: &'static str = "segments";
    const SCOPE: Scope = Scope::Process;
    const STAGE: Stage = Stage::Process;
    const CAUSES: &'static [Cause] = &[IN_USE];
    type State = State;

    fn ask(_: Owner, batch: &mut Batch) -> Result<()> {
        let args =
            [READ.into(), Arg::Out(ENTRY_BYTES), Arg::Value(ENTRY_BYTES.cast_signed() as i64)];
        batch.call("modify_ldt", SYS_modify_ldt, args);
        Ok(())
    }

    fn answer(seen: &mut Seen<'_, '_>, replies: &[Reply]) -> Result<State> {
        match only(replies)?.value() {
            Ok(0) | Err(Error::Kernel(_, Errno::ENOSYS)) => {}
            Ok(_) => seen.obstacle("the local descriptor table", &IN_USE),
            Err(error) => return Err(error),
        }
        Ok(State {})
    }
}
