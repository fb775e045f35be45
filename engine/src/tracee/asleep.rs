//! Since when a thread sleeps: looked up before it is stopped, for stopping it wakes it.
//!
//! The scheduler keeps when a thread last left a processor (`se.exec_start` of `/proc/TID/sched`), by the
//! clock of that processor; how that is offset from `CLOCK_MONOTONIC` is measured by reading our own
//! there. Kernels without `CONFIG_SCHED_DEBUG` do not tell, nor can a processor that is too busy be asked:
//! then a wait counts from when we came.
use std::collections::BTreeMap;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::countdown;
use super::procfs::Stat;
use crate::arch::RegisterFile;
use crate::inventory::Tid;
use crate::procfs::text;
use crate::sys::processor::on;

/// So long we wait for a busy processor: seldom, and mostly before anybody stands.
const PATIENCE: Duration = Duration::from_millis(200);

/// How often to look at a processor's clock, and how long an undisturbed look takes at most (60 us mostly).
const LOOKS: u32 = 50;
const UNDISTURBED: i64 = 500_000;

/// A call in which a thread sleeps, and since when by `CLOCK_MONOTONIC`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asleep {
    pub(super) call: i64,
    pub(super) arguments: [u64; 6],
    pub(super) since: i64,
    /// How long it was told to wait, where the kernel will change that.
    pub(super) told: Option<i64>,
    /// How often it had given up its processor.
    switches: u64,
}

impl Asleep {
    /// Whether it is this call that was interrupted: not the next one like it, of which it would be too
    /// early to end. Since it slept, the thread has given up its processor once, in the present stop.
    pub(super) fn is_in(&self, tid: Tid, call: i64, registers: &RegisterFile) -> bool {
        let same = |at| self.arguments.get(at) == Some(&registers.argument(at));
        let once = || Noted::of(tid).is_some_and(|now| now.switches == self.switches + 1);
        self.call == call && (0..5).all(same) && once()
    }
}

/// `CLOCK_MONOTONIC`, in nanoseconds.
pub(super) fn monotonic() -> i64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |now| now.tv_sec() * 1_000_000_000 + now.tv_nsec())
}

/// Offsets of processors' clocks, as far as asked.
#[derive(Debug, Default)]
pub(super) struct Clocks(BTreeMap<usize, Option<i64>>);

impl Clocks {
    /// What this thread sleeps in, if it is a call that might have a relative timeout.
    pub(super) fn asleep(&mut self, tid: Tid, timed: impl Fn(i64) -> bool) -> Option<Asleep> {
        let (call, arguments) = parse_call(&text(format!("/proc/{tid}/syscall")).ok()?)?;
        if !timed(call) {
            return None;
        }
        let noted = Noted::of(tid)?;
        let processor = Stat::of(tid).processor()?;
        let offset = (*self.0.entry(processor).or_insert_with(|| offset_of(processor)))?;
        let told = countdown::told(tid, call, &arguments);
        let (since, switches) = (noted.exec_start + offset, noted.switches);
        let still = Noted::of(tid)?.switches == switches;
        still.then_some(Asleep { call, arguments, since, told, switches })
    }
}

/// How far `CLOCK_MONOTONIC` is ahead of this processor's clock.
fn offset_of(processor: usize) -> Option<i64> {
    on(processor, PATIENCE, || (0..LOOKS).find_map(|_| own_offset()))
}

/// Unless somebody else was given the processor meanwhile: then nobody knows when what was noted.
fn own_offset() -> Option<i64> {
    let start = monotonic();
    // Waking has the scheduler note the time; to yield might cost a whole slice.
    std::thread::sleep(Duration::from_micros(1));
    let now = monotonic();
    let noted = parse_exec_start(&text("/proc/thread-self/sched").ok()?)?;
    (monotonic() - start < UNDISTURBED).then_some(now - noted)
}

/// `number a b c d e f sp pc` in hexadecimal but for the number, or `running`.
fn parse_call(text: &str) -> Option<(i64, [u64; 6])> {
    let mut words = text.split_ascii_whitespace();
    let call = words.next()?.parse().ok().filter(|call| *call >= 0)?;
    let mut arguments = [0; 6];
    for argument in &mut arguments {
        *argument = u64::from_str_radix(words.next()?.trim_start_matches("0x"), 16).ok()?;
    }
    Some((call, arguments))
}

/// What the scheduler notes of a thread.
struct Noted {
    exec_start: i64,
    switches: u64,
}

impl Noted {
    fn of(tid: Tid) -> Option<Self> {
        Self::parse(&text(format!("/proc/{tid}/sched")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().find(|line| line.starts_with("nr_voluntary_switches"))?;
        let switches = line.rsplit_once(':')?.1.trim().parse().ok()?;
        Some(Self { exec_start: parse_exec_start(text)?, switches })
    }
}

/// Milliseconds with six decimals: nanoseconds.
fn parse_exec_start(text: &str) -> Option<i64> {
    let line = text.lines().find(|line| line.starts_with("se.exec_start"))?;
    let (whole, decimals) = line.rsplit_once(':')?.1.trim().split_once('.')?;
    let whole: i64 = whole.parse().ok()?;
    (decimals.len() == 6).then_some(whole * 1_000_000 + decimals.parse::<i64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_read_with_its_arguments() {
        let (call, arguments) =
            parse_call("232 0x4 0x7ffc 0x1 0x3e8 0x0 0x8 0x7ffd 0x7f00\n").unwrap();
        assert_eq!((call, arguments[3]), (232, 1000));
        assert_eq!(parse_call("running\n"), None);
        assert_eq!(parse_call("-1 0x7ffd 0x7f00\n"), None);
    }

    #[test]
    fn the_scheduler_tells_nanoseconds() {
        let text = "x (1, #threads: 1)\nse.exec_start     :      123456.000789\n";
        assert_eq!(parse_exec_start(text), Some(123_456_000_789));
        let text = format!("{text}nr_switches : 9\nnr_voluntary_switches   :      7\n");
        assert_eq!(Noted::parse(&text).unwrap().switches, 7);
    }

    #[test]
    fn our_own_sleep_is_dated_between_its_call_and_our_seeing_it() {
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            tell.send((nix::unistd::gettid(), monotonic())).unwrap();
            std::thread::sleep(Duration::from_secs(60));
        });
        let (tid, before) = told.recv().unwrap();
        // It may not sleep yet, and a machine may be too busy to be asked at once.
        let seen = std::iter::repeat_with(|| {
            std::thread::sleep(Duration::from_millis(1));
            let asleep = Clocks::default().asleep(Tid(tid.as_raw()), is_sleep);
            (asleep, monotonic())
        });
        let (first, after) = seen.take(10_000).find(|(asleep, _)| asleep.is_some()).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let later = Clocks::default().asleep(Tid(tid.as_raw()), is_sleep);
        for asleep in first.iter().chain(&later) {
            let bounds = before - UNDISTURBED..=after + UNDISTURBED;
            assert!(bounds.contains(&asleep.since), "{} not in {bounds:?}", asleep.since);
        }
    }

    fn is_sleep(call: i64) -> bool {
        [nix::libc::SYS_nanosleep, nix::libc::SYS_clock_nanosleep].contains(&call)
    }
}
