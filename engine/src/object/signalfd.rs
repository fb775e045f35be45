//! signalfd(2): a set of signals to be read; which ones wait is the reader's business.
//!
//! Kernel: `fs/signalfd.c`.
use super::{Build, Claim, Collect, Ends, Evidence, Identity, Object, View};
use crate::error::{Cause, Result, kernel};
use crate::inventory::End;
use crate::sys::signalfd;

pub(super) struct Signalfd;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    #[prost(uint64, tag = "1")]
    mask: u64,
}

const UNREADABLE: Cause = Cause {
    code: "signalfd:unreadable",
    reason: "its fdinfo does not tell the signals",
    remedy: "use a kernel since 3.8, with /proc mounted",
};

impl Object for Signalfd {
    const NAME: &'static str = "signalfd";
    const CAUSES: &'static [Cause] = &[UNREADABLE];
    type State = State;

    fn claims(seen: &Evidence) -> Option<Claim> {
        (seen.link == "anon_inode:[signalfd]").then(|| Claim::whole(Identity::OpenFile))
    }

    fn collect(with: &mut Collect<'_>) -> Result<State> {
        let mask = with.info.take_number("sigmask", 16);
        if mask.is_none() {
            with.obstacle(&UNREADABLE);
        }
        Ok(State { mask: mask.unwrap_or_default() })
    }

    fn build(state: &State, _: &mut Build<'_>) -> Result<Ends> {
        Ok(Ends::one(signalfd::create(state.mask).map_err(kernel("signalfd4"))?))
    }

    fn view(_: &State, _: End) -> View {
        View::of("anon_inode:[signalfd]")
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;
    use super::*;

    #[test]
    fn round_trip_keeps_all_signals() {
        for mask in [0, 1 << 9 | 1 << 63] {
            let ours = signalfd::create(mask).unwrap();
            let (state, _) = Bench::default().round_trip::<Signalfd>(&[ours]);
            assert_eq!(state.mask, mask);
        }
    }
}
