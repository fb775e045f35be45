//! setitimer(2): what remains of the three timers, and their intervals.
use nix::libc::{SYS_getitimer, SYS_setitimer};

use super::super::{Attribute, Owner, Scope, Seen};
use super::nanoseconds;
use crate::error::Result;
use crate::object::TimerView;
use crate::plan::Stage;
use crate::remote::{Arg, Batch, Reply};

pub(in super::super) struct IntervalTimers;

/// `ITIMER_REAL`, `ITIMER_VIRTUAL`, `ITIMER_PROF`.
const COUNT: i64 = 3;
/// `struct itimerval`: interval, then what remains.
const BYTES: usize = 32;

#[derive(Clone, PartialEq, prost::Message)]
pub(in super::super) struct State {
    /// By number, as the kernel gives them.
    #[prost(bytes = "vec", repeated, tag = "1")]
    values: Vec<Vec<u8>>,
}

impl State {
    /// Those that run, by number.
    pub(in super::super) fn running(&self) -> Vec<(u32, TimerView)> {
        let clocks = ["realtime", "virtual", "profile"];
        let all = (0..).zip(clocks).zip(&self.values);
        let view = |((id, clock), value): ((u32, &str), &Vec<u8>)| {
            let (interval_ns, remaining_ns) = nanoseconds(value, false)?;
            Some((id, TimerView { clock: clock.to_owned(), remaining_ns, interval_ns }))
        };
        all.filter_map(view).filter(|(_, timer)| timer.remaining_ns != 0).collect()
    }
}

impl Attribute for IntervalTimers {
    const NAME: &'static str = "interval_timers";
    const SCOPE: Scope = Scope::Process;
    /// Late, for they run.
    const STAGE: Stage = Stage::Final;
    type State = State;

    fn ask(_: Owner, batch: &mut Batch) -> Result<()> {
        for which in 0..COUNT {
            batch.call("getitimer", SYS_getitimer, [which.into(), Arg::Out(BYTES)]);
        }
        Ok(())
    }

    fn answer(_: &mut Seen<'_, '_>, replies: &[Reply]) -> Result<State> {
        let value = |reply: &Reply| reply.value().map(|_| reply.out.clone());
        Ok(State { values: replies.iter().map(value).collect::<Result<_>>()? })
    }

    fn comparable(mut state: State) -> State {
        state.values.iter_mut().for_each(|value| without_rest(value));
        state
    }

    fn restore(state: &State, batch: &mut Batch) {
        for (which, value) in (0i64..).zip(&state.values) {
            if value.iter().any(|byte| *byte != 0) {
                let args = [which.into(), Arg::In(value.clone()), 0.into()];
                batch.call("setitimer", SYS_setitimer, args);
            }
        }
    }
}

/// Takes out of an interval and what remains of it how much remains; not whether it runs.
pub(super) fn without_rest(setting: &mut [u8]) {
    let rest = setting.get_mut(BYTES / 2..).unwrap_or_default();
    let runs = rest.iter().any(|byte| *byte != 0);
    rest.fill(u8::from(runs));
}
