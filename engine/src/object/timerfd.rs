//! `timerfd_create(2)`: a timer that is read.
//!
//! Kernel: `fs/timerfd.c`. The time that remains is the same in every time namespace, so that the
//! coordinator may set it; and monotonic time goes on where it was. An absolute time of day is
//! remembered as that.
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::libc::{CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_REALTIME, TFD_TIMER_ABSTIME};
use nix::time::{ClockId, clock_gettime};

use super::view::{TimerView, clock};
use super::{Build, Claim, Collect, Ends, Evidence, Identity, Object, View};
use crate::error::{Cause, Result, kernel, kernel_io};
use crate::inventory::End;
use crate::procfs::{self, Fields};
use crate::sys::timerfd;

pub(super) struct Timerfd;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    #[prost(int32, tag = "1")]
    clock: i32,
    /// `TFD_TIMER_ABSTIME` and `TFD_TIMER_CANCEL_ON_SET`, as it was set.
    #[prost(int32, tag = "2")]
    flags: i32,
    /// Expirations not read yet.
    #[prost(uint64, tag = "3")]
    ticks: u64,
    /// Nanoseconds until the next expiration; zero if it is not armed. The time of day of the
    /// expiration, if it was set to one.
    #[prost(int64, tag = "4")]
    value: i64,
    #[prost(int64, tag = "5")]
    interval: i64,
}

const ALARM: Cause = Cause {
    code: "timerfd:alarm",
    reason: "its clock wakes the machine from suspend",
    remedy: "have the program use CLOCK_BOOTTIME or CLOCK_REALTIME",
};
const UNREADABLE: Cause = Cause {
    code: "timerfd:unreadable",
    reason: "its fdinfo does not tell clock and ticks",
    remedy: "use a kernel since 3.17, with /proc mounted",
};

impl Object for Timerfd {
    const NAME: &'static str = "timerfd";
    const CAUSES: &'static [Cause] = &[ALARM, UNREADABLE];
    type State = State;

    fn claims(seen: &Evidence) -> Option<Claim> {
        (seen.link == "anon_inode:[timerfd]").then(|| Claim::whole(Identity::OpenFile))
    }

    fn collect(with: &mut Collect<'_>) -> Result<State> {
        for key in ["clockid", "ticks", "settime flags", "it_value", "it_interval"] {
            with.info.take(key);
        }
        let Some((_, fd)) = with.files.first() else { return Ok(State::default()) };
        // Asking moves a periodic timer on; only after that are the ticks of fdinfo all of them.
        let (value, interval) = remaining(fd.as_fd()).map_err(kernel("timerfd_gettime"))?;
        let info = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
        let info = procfs::text(info).map_err(kernel_io("read"))?;
        let Some(mut state) = parse(&mut Fields::parse(&info)) else {
            with.obstacle(&UNREADABLE);
            return Ok(State::default());
        };
        if ![CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME].contains(&state.clock) {
            with.obstacle(&ALARM);
        }
        (state.value, state.interval) = (value, interval);
        if state.is_time_of_day() {
            state.value = state.value.saturating_add(now(CLOCK_REALTIME)?);
        }
        Ok(state)
    }

    /// One that comes once only may have come meanwhile.
    fn comparable(mut state: State) -> State {
        let runs = state.value != 0;
        (state.value, state.ticks) = match state.interval {
            0 => (0, state.ticks + u64::from(runs)),
            _ => (i64::from(runs), 0),
        };
        state
    }

    fn build(state: &State, _: &mut Build<'_>) -> Result<Ends> {
        let made = timerfd::create(state.clock).map_err(kernel("timerfd_create"))?;
        let mut value = state.value;
        if value != 0 && state.flags & TFD_TIMER_ABSTIME != 0 && !state.is_time_of_day() {
            value = value.saturating_add(now(state.clock)?);
        }
        let setting = (value, state.interval);
        timerfd::set(made.as_fd(), state.flags, setting).map_err(kernel("timerfd_settime"))?;
        if state.ticks != 0 {
            timerfd::set_ticks(made.as_fd(), state.ticks).map_err(kernel("ioctl"))?;
        }
        Ok(Ends::one(made))
    }

    fn view(state: &State, _: End) -> View {
        let timer = TimerView {
            clock: clock(state.clock),
            remaining_ns: state.value,
            interval_ns: state.interval,
        };
        View { timer: Some(timer), ..View::of("anon_inode:[timerfd]") }
    }
}

/// Nothing is left of one that is disarmed, nor of a periodic one that comes just while it is asked: the latter
/// says something else the next time.
fn remaining(fd: BorrowedFd<'_>) -> nix::Result<(i64, i64)> {
    const TIMES: usize = 20;
    let mut told = timerfd::remaining(fd)?;
    for _ in 0..TIMES {
        if told.0 != 0 || told.1 == 0 {
            break;
        }
        told = timerfd::remaining(fd)?;
    }
    Ok(told)
}

impl State {
    fn is_time_of_day(&self) -> bool {
        let absolute = self.flags & TFD_TIMER_ABSTIME != 0;
        self.clock == CLOCK_REALTIME && absolute && self.value != 0
    }
}

fn parse(info: &mut Fields<'_>) -> Option<State> {
    let clock = info.take("clockid")?.parse().ok()?;
    let ticks = info.take("ticks")?.parse().ok()?;
    let flags = i32::from_str_radix(info.take("settime flags")?, 8).ok()?;
    Some(State { clock, flags, ticks, ..State::default() })
}

fn now(clock: i32) -> Result<i64> {
    let now = clock_gettime(ClockId::from_raw(clock)).map_err(kernel("clock_gettime"))?;
    Ok(now.tv_sec().saturating_mul(1_000_000_000).saturating_add(now.tv_nsec()))
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;
    use super::*;
    use nix::libc::TFD_TIMER_CANCEL_ON_SET;

    const HOUR: i64 = 3_600_000_000_000;

    #[test]
    fn every_way_to_set_one_comes_back() {
        for clock in [CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME] {
            let there = now(CLOCK_REALTIME).unwrap() + HOUR;
            let absolute = TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET;
            let day = if clock == CLOCK_REALTIME { (absolute, there) } else { (1, HOUR) };
            for (flags, value) in [(0, HOUR), day] {
                let state = State { clock, flags, value, interval: HOUR, ticks: 7 };
                let bench = Bench::default();
                let built = bench.build::<Timerfd>(&state).files();
                let mut again = Bench::default().collect::<Timerfd>(&built);
                assert!((again.value - value).abs() < 5_000_000_000, "{again:?}");
                again.value = value;
                assert_eq!(again, state);
            }
        }
    }

    #[test]
    fn one_that_expired_unread_keeps_its_ticks() {
        let ours = timerfd::create(CLOCK_MONOTONIC).unwrap();
        timerfd::set(ours.as_fd(), 0, (1, 1_000_000)).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        let state = Bench::default().collect::<Timerfd>(&[ours]);
        assert!(state.ticks >= 10 && state.value > 0, "{state:?}");
        let once = State { ticks: 1, ..State::default() };
        let built = Bench::default().build::<Timerfd>(&once).files();
        assert_eq!(Bench::default().collect::<Timerfd>(&built), once);
        let mut ticks = [0; 8];
        assert_eq!(nix::unistd::read(&built[0], &mut ticks), Ok(8));
        assert_eq!(u64::from_ne_bytes(ticks), 1);
    }
}
