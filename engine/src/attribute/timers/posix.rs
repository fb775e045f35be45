//! `timer_create(2)`: timers with their ids, which the program holds in its memory.
//!
//! `/proc/PID/timers` (`fs/proc/base.c`) lists them; what remains is asked inside. An id can be chosen
//! since 6.15 (`PR_TIMER_CREATE_RESTORE_IDS`); before, ids are given in order, so those in between
//! are made and deleted. That a timer was set to an absolute time is nowhere told: it goes on with
//! what remained.
use nix::errno::Errno;
use nix::libc::{
    SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD_ID, SYS_prctl, SYS_timer_create, SYS_timer_delete,
    SYS_timer_gettime, SYS_timer_settime,
};

use super::super::{Attribute, Owner, Scope, Seen};
use super::nanoseconds;
use crate::error::{Error, Result};
use crate::object::TimerView;
use crate::object::view::clock;
use crate::plan::Stage;
use crate::remote::{Arg, Batch, Reply};
use crate::sys;

pub(in super::super) struct PosixTimers;

#[derive(Clone, PartialEq, prost::Message)]
pub(in super::super) struct State {
    /// In ascending order of their ids.
    #[prost(message, repeated, tag = "1")]
    timers: Vec<Timer>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Timer {
    #[prost(uint32, tag = "1")]
    id: u32,
    #[prost(int32, tag = "2")]
    clock: i32,
    /// `SIGEV_*`.
    #[prost(int32, tag = "3")]
    notify: i32,
    #[prost(int32, tag = "4")]
    signal: i32,
    /// `sigev_value`.
    #[prost(fixed64, tag = "5")]
    value: u64,
    /// With `SIGEV_THREAD_ID`.
    #[prost(int32, tag = "6")]
    thread: i32,
    /// `struct itimerspec`: interval, then what remains; all zero if it does not run.
    #[prost(bytes = "vec", tag = "7")]
    setting: Vec<u8>,
}

/// `struct itimerspec`.
const BYTES: usize = 32;
/// `PR_TIMER_CREATE_RESTORE_IDS` of `include/uapi/linux/prctl.h`, since 6.15: 1 on, 0 off.
const PR_TIMER_CREATE_RESTORE_IDS: i64 = 77;

impl State {
    /// All of them, by id.
    pub(in super::super) fn running(&self) -> Vec<(u32, TimerView)> {
        let view = |timer: &Timer| {
            let (interval_ns, remaining_ns) = nanoseconds(&timer.setting, true)?;
            Some((timer.id, TimerView { clock: clock(timer.clock), remaining_ns, interval_ns }))
        };
        self.timers.iter().filter_map(view).collect()
    }
}

impl Attribute for PosixTimers {
    const NAME: &'static str = "posix_timers";
    const SCOPE: Scope = Scope::Process;
    /// After all threads, one of which may be told; late, for they run.
    const STAGE: Stage = Stage::Final;
    type State = State;

    fn ask(owner: Owner, batch: &mut Batch) -> Result<()> {
        for timer in listed(owner)? {
            let args = [i64::from(timer.id).into(), Arg::Out(BYTES)];
            batch.call("timer_gettime", SYS_timer_gettime, args);
        }
        Ok(())
    }

    fn answer(seen: &mut Seen<'_, '_>, replies: &[Reply]) -> Result<State> {
        let mut timers = listed(seen.owner)?;
        if timers.len() != replies.len() {
            return Err(Error::Kernel("timer_gettime", Errno::ENODATA));
        }
        for (timer, reply) in timers.iter_mut().zip(replies) {
            reply.value()?;
            timer.setting.clone_from(&reply.out);
        }
        Ok(State { timers })
    }

    fn comparable(mut state: State) -> State {
        let settings = state.timers.iter_mut().map(|timer| &mut timer.setting);
        settings.for_each(|setting| super::interval::without_rest(setting));
        state
    }

    fn restore(state: &State, batch: &mut Batch) {
        if state.timers.is_empty() {
            return;
        }
        let chosen = sys::kernel_at_least(6, 15);
        let choose = |batch: &mut Batch, on: i64| {
            if chosen {
                batch.call("prctl", SYS_prctl, [PR_TIMER_CREATE_RESTORE_IDS.into(), on.into()]);
            }
        };
        choose(batch, 1);
        let mut next = 0;
        for timer in &state.timers {
            if !chosen {
                (next..timer.id).for_each(|id| skip(id, batch));
                next = timer.id + 1;
            }
            create(timer, batch);
        }
        choose(batch, 0);
    }
}

/// Uses up an id.
fn skip(id: u32, batch: &mut Batch) {
    let placeholder = Timer { id, notify: SIGEV_NONE, ..Timer::default() };
    create(&placeholder, batch);
    batch.call("timer_delete", SYS_timer_delete, [i64::from(id).into()]);
}

fn create(timer: &Timer, batch: &mut Batch) {
    let id = timer.id.to_ne_bytes().to_vec();
    let args = [timer.clock.into(), Arg::In(event(timer)), Arg::In(id)];
    batch.call("timer_create", SYS_timer_create, args);
    if timer.setting.iter().any(|byte| *byte != 0) {
        let setting = Arg::In(timer.setting.clone());
        let args = [i64::from(timer.id).into(), 0.into(), setting, 0.into()];
        batch.call("timer_settime", SYS_timer_settime, args);
    }
}

/// `struct sigevent` of `include/uapi/asm-generic/siginfo.h`: 64 bytes.
fn event(timer: &Timer) -> Vec<u8> {
    let mut bytes = timer.value.to_ne_bytes().to_vec();
    for word in [timer.signal, timer.notify, timer.thread] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.resize(64, 0);
    bytes
}

fn listed(owner: Owner) -> Result<Vec<Timer>> {
    let text = owner.read("timers")?.unwrap_or_default();
    parse(&text).ok_or_else(|| Error::Record("timers".into(), None))
}

/// Four lines for each timer: `ID: 0`, `signal: 14/00007ffd...`, `notify: signal/tid.77`,
/// `ClockID: 1`. Newest first in the file.
fn parse(text: &str) -> Option<Vec<Timer>> {
    let lines: Vec<_> = text.lines().map(|line| line.split_once(':')).collect::<Option<_>>()?;
    let mut timers = Vec::new();
    for four in lines.chunks(4) {
        let [("ID", id), ("signal", signal), ("notify", notify), ("ClockID", clock)] = four else {
            return None;
        };
        let (signal, value) = signal.trim().split_once('/')?;
        let (notify, thread) = parse_notify(notify.trim())?;
        timers.push(Timer {
            id: id.trim().parse().ok()?,
            clock: clock.trim().parse().ok()?,
            notify,
            signal: signal.parse().ok()?,
            value: u64::from_str_radix(value, 16).ok()?,
            thread,
            setting: Vec::new(),
        });
    }
    timers.sort_by_key(|timer| timer.id);
    Some(timers)
}

fn parse_notify(text: &str) -> Option<(i32, i32)> {
    let (how, whom) = text.split_once('/')?;
    let (kind, number) = whom.split_once('.')?;
    match (how, kind) {
        ("none", _) => Some((SIGEV_NONE, 0)),
        ("signal", "tid") => Some((SIGEV_THREAD_ID, number.parse().ok()?)),
        // SIGEV_THREAD is glibc's own affair: the kernel sees a signal.
        ("signal" | "thread", "pid") => Some((SIGEV_SIGNAL, 0)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read_whole_or_not_at_all() {
        let text = "ID: 3\nsignal: 14/00000000deadbeef\nnotify: signal/tid.77\nClockID: 1\n\
                    ID: 0\nsignal: 0/0\nnotify: none/pid.7\nClockID: -6\n";
        let timers = parse(text).unwrap();
        let seen: Vec<_> = timers.iter().map(|t| (t.id, t.clock, t.notify, t.thread)).collect();
        assert_eq!(seen, [(0, -6, SIGEV_NONE, 0), (3, 1, SIGEV_THREAD_ID, 77)]);
        assert_eq!(timers[1].value, 0xdead_beef);
        assert_eq!(parse(&text.replace("notify", "future")), None);
    }
}
