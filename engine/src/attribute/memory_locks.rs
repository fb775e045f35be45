//! `mlockall(MCL_FUTURE)`: all memory that is mapped from now on is locked. What is locked already is
//! an area's own affair.
//!
//! Nothing tells it, but the heap does: memory that it grows by is locked then. msync(2) says so of
//! any locked memory, and mincore(2) whether it was filled at once. Kernel: `mm/mlock.c`, `do_brk_flags`.
use nix::errno::Errno;
use nix::libc::{
    MCL_FUTURE, MCL_ONFAULT, MS_INVALIDATE, SYS_brk, SYS_mincore, SYS_mlockall, SYS_msync,
};
use prost::Message;

use super::{Attribute, Scope, Seen};
use crate::error::{Error, Result};
use crate::plan::Stage;
use crate::remote::{Arg, Batch, Caller, Reply};

pub(crate) struct MemoryLocks;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct State {
    /// As mlockall(2) wants them; zero: it was never asked.
    #[prost(int32, tag = "1")]
    flags: i32,
}

const PAGE: u64 = 4096;

impl Attribute for MemoryLocks {
    const NAME: &'static str = "memory_locks";
    const SCOPE: Scope = Scope::Process;
    const STAGE: Stage = Stage::Process;
    type State = State;

    /// Asked apart, by [`look`], which has to know where the heap ends.
    fn answer(_: &mut Seen<'_, '_>, _: &[Reply]) -> Result<State> {
        Ok(State::default())
    }

    fn restore(state: &State, batch: &mut Batch) {
        if state.flags != 0 {
            batch.call("mlockall", SYS_mlockall, [state.flags.into()]);
        }
    }
}

/// Has the heap, which ends at `brk`, grow for a moment: in one batch, so that nobody ever sees it.
pub(crate) fn look(brk: u64, inside: &mut dyn Caller) -> Result<Vec<u8>> {
    let more = brk.next_multiple_of(PAGE);
    let [brk, more, end, page] = [brk, more, more + PAGE, PAGE].map(u64::cast_signed);
    let mut batch = Batch::default();
    batch.call("brk", SYS_brk, [end.into()]);
    batch.call("msync", SYS_msync, [more.into(), page.into(), MS_INVALIDATE.into()]);
    batch.call("mincore", SYS_mincore, [more.into(), page.into(), Arg::Out(1)]);
    batch.call("brk", SYS_brk, [brk.into()]);
    let replies = inside.perform(&batch)?;
    Ok(State { flags: flags(&replies) }.encode_to_vec())
}

fn flags(replies: &[Reply]) -> i32 {
    let [_, synced, filled, _] = replies else { return 0 };
    let locked = matches!(synced.value(), Err(Error::Kernel(_, Errno::EBUSY)));
    let at_once = filled.out.first().is_some_and(|byte| byte & 1 == 1);
    match (locked, at_once) {
        (false, _) => 0,
        (true, true) => MCL_FUTURE,
        (true, false) => MCL_FUTURE | MCL_ONFAULT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_heap_tells() {
        let reply = |result, out: &[u8]| Reply { call: "", result, out: out.to_vec() };
        let told = |synced, byte| {
            flags(&[reply(0, &[]), reply(synced, &[]), reply(0, &[byte]), reply(0, &[])])
        };
        let busy = -i64::from(Errno::EBUSY as i32);
        assert_eq!([told(0, 0), told(0, 1)], [0, 0]);
        assert_eq!([told(busy, 1), told(busy, 0)], [MCL_FUTURE, MCL_FUTURE | MCL_ONFAULT]);
    }
}
