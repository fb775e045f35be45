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

/// `SCHED_ATTR_SIZE_VER1` of `include/uapi/linux/sched/types.h`: with the clamps, since 5.3.
const VERSION_1: usize = 56;
/// `SCHED_FLAG_UTIL_CLAMP` of `include/uapi/linux/sched.h`: the clamps are to be set.
const CLAMPED: u64 = 0x60;
/// `SCHED_CAPACITY_SCALE`: how far the upper one is from clamping.
const WHOLE: u32 = 1024;
/// Where they are behind the size: flags, and both clamps.
const FLAGS: usize = 4;
const CLAMPS: usize = 44;

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
        let bytes = VERSION_1.cast_signed() as i64;
        let args = [0.into(), Arg::Out(VERSION_1), bytes.into(), 0.into()];
        batch.call("sched_getattr", SYS_sched_getattr, args);
        Ok(())
    }

    fn answer(_: &mut Seen<'_, '_>, replies: &[Reply]) -> Result<State> {
        let reply = only(replies)?;
        reply.value()?;
        let attr = || {
            let (size, attr) = reply.out.split_first_chunk()?;
            let size = usize::try_from(u32::from_ne_bytes(*size)).ok()?;
            Some(attr.get(..size.checked_sub(size_of::<u32>())?)?.to_vec())
        };
        Ok(State { attr: attr().ok_or_else(|| Error::Record("scheduler".into(), None))? })
    }

    fn restore(state: &State, batch: &mut Batch) {
        let mut attr = state.attr.clone();
        if let (true, Some(flags)) = (clamped(&attr), attr.get_mut(FLAGS..FLAGS + 8)) {
            flags.iter_mut().zip(CLAMPED.to_ne_bytes()).for_each(|(byte, flag)| *byte |= flag);
        }
        let size = u32::try_from(size_of::<u32>() + attr.len()).unwrap_or_default();
        let args = [0.into(), Arg::In([&size.to_ne_bytes(), &attr[..]].concat()), 0.into()];
        batch.call("sched_setattr", SYS_sched_setattr, args);
    }
}

/// Whether somebody has set the clamps. A kernel without them tells zeros.
fn clamped(attr: &[u8]) -> bool {
    let clamp = |at: usize| Some(u32::from_ne_bytes(*attr.get(at..)?.first_chunk()?));
    match (clamp(CLAMPS), clamp(CLAMPS + 4)) {
        (Some(least), Some(most)) => least > 0 || !matches!(most, 0 | WHOLE),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::Call;

    /// What is set, when this was told: the size, the flags and the clamps.
    fn set(size: u32, clamps: [u32; 2]) -> (u32, u64, Vec<u8>) {
        let mut told = [&size.to_ne_bytes()[..], &[0; 44]].concat();
        told[8] = 1; // SCHED_FLAG_RESET_ON_FORK
        told.extend(clamps.into_iter().flat_map(u32::to_ne_bytes));
        let reply = Reply { call: "sched_getattr", result: 0, out: told };
        let (mut status, mut obstacles) =
            (crate::procfs::Fields::parse(""), Vec::<crate::error::Obstacle>::new());
        let owner = Owner::Process(crate::inventory::Pid(7));
        let mut seen = Seen::new(owner, &mut status, &mut obstacles);
        let (state, mut batch) =
            (Scheduler::answer(&mut seen, &[reply]).unwrap(), Batch::default());
        Scheduler::restore(&state, &mut batch);
        let [Call { args, .. }] = &batch.0[..] else { panic!("{batch:?}") };
        let Arg::In(attr) = &args[1] else { panic!("{args:?}") };
        let word = |at: usize| u32::from_ne_bytes(*attr[at..].first_chunk().unwrap());
        (word(0), u64::from(word(8)), attr[48..].to_vec())
    }

    #[test]
    fn only_clamps_that_were_set_are_set_again() {
        assert_eq!(set(56, [0, 1024]).1, 1);
        assert_eq!(set(56, [0, 0]).1, 1);
        let (size, flags, clamps) = set(56, [100, 1024]);
        assert_eq!((size, flags), (56, 1 | CLAMPED));
        assert_eq!(clamps, [100u32, 1024].map(u32::to_ne_bytes).concat());
        assert_eq!(set(56, [0, 512]).1, 1 | CLAMPED);
    }

    #[test]
    fn an_older_kernel_tells_less() {
        assert_eq!(set(48, [100, 200]), (48, 1, Vec::new()));
    }
}
