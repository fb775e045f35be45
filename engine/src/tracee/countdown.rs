//! Timeouts that the kernel counts down in the program's own memory: ppoll(2), pselect(2), select(2).
//!
//! Interrupted, such a call notes what is left, and is made again with that: so each pause would be added
//! to the wait. What is left is noted anew whenever the thread may go on.
use std::fs::File;
use std::os::unix::fs::FileExt;

use super::asleep::{Asleep, monotonic};
use super::site::Site;
use crate::arch::{Interrupted, RegisterFile, Timeout};
use crate::inventory::Tid;

const SECOND: i64 = 1_000_000_000;

/// What is left of a wait, in the program's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Countdown {
    place: Place,
    /// When the wait ends, by `CLOCK_MONOTONIC`, in nanoseconds.
    deadline: i64,
}

/// Seconds, and a smaller unit of so many nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    address: u64,
    unit: i64,
}

impl Place {
    /// Of a call with these arguments.
    fn of(call: i64, registers: &RegisterFile) -> Option<Self> {
        let (argument, unit) = match registers.timeout(call)? {
            Timeout::Countdown(argument) => (argument, 1),
            Timeout::CountdownMicro(argument) => (argument, 1000),
            Timeout::Milliseconds(_) | Timeout::Timespec(_) => return None,
        };
        Some(Self { address: registers.argument(argument), unit }).filter(|at| at.address != 0)
    }

    fn read(self, memory: &File) -> Option<i64> {
        let mut bytes = [0; 16];
        memory.read_exact_at(&mut bytes, self.address).ok()?;
        let [seconds, rest] = bytes.as_chunks().0 else { return None };
        let rest = i64::from_ne_bytes(*rest).saturating_mul(self.unit);
        Some(i64::from_ne_bytes(*seconds).saturating_mul(SECOND).saturating_add(rest))
    }
}

/// What such a call was told before it was interrupted.
pub(super) fn told(tid: Tid, call: i64, arguments: &[u64; 6]) -> Option<i64> {
    let place = Place::of(call, &RegisterFile::with_arguments(arguments))?;
    place.read(&File::open(format!("/proc/{tid}/mem")).ok()?)
}

impl Countdown {
    /// Of a thread that was interrupted in such a call.
    pub(super) fn of(
        site: &Site,
        tid: Tid,
        registers: &RegisterFile,
        asleep: Option<Asleep>,
        stopped_at: i64,
    ) -> Option<Self> {
        let Interrupted::Again(call) = registers.interrupted() else { return None };
        let place = Place::of(call, registers)?;
        let before = asleep.filter(|sleep| sleep.is_in(tid, call, registers));
        let known = before.and_then(|sleep| Some(sleep.since.saturating_add(sleep.told?)));
        let noted = || Some(stopped_at.saturating_add(place.read(&site.memory)?));
        Some(Self { place, deadline: known.or_else(noted)? })
    }

    /// Notes what is left now. If another thread has taken the memory away, the call will say so.
    pub(super) fn refresh(&self, site: &Site) {
        let left = self.deadline.saturating_sub(monotonic()).max(0);
        let words = [left / SECOND, left % SECOND / self.place.unit];
        let bytes = words.map(i64::to_ne_bytes);
        if let Err(error) = site.memory.write_all_at(bytes.as_flattened(), self.place.address) {
            tracing::debug!(%error, "cannot note what is left of a timeout");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_is_left_is_read_in_both_units() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all([2i64, 5].map(i64::to_ne_bytes).as_flattened()).unwrap();
        let read = |unit| Place { address: 0, unit }.read(&file);
        assert_eq!((read(1), read(1000)), (Some(2 * SECOND + 5), Some(2 * SECOND + 5000)));
        assert_eq!(Place { address: 8, unit: 1 }.read(&file), None);
    }
}
