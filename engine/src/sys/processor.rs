//! On which processor an OS thread runs.
//!
//! Being bound to one is dangerous where many want it: a group of processes that has run elsewhere so far
//! was seen to wait there for six seconds, with the program standing still all the while. So whoever binds
//! itself is watched by a second OS thread, which sets it free when it takes long.
use std::collections::BTreeMap;
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::Result;
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, gettid};

use super::urgency::Urgent;

/// Whoever is bound for longer than this, twice at most, is set free.
const LONG: Duration = Duration::from_millis(2);
/// So often nobody was bound: the watcher ends.
const IDLE_LOOKS: u32 = 50;

/// Who is bound at present.
struct Bound {
    /// By OS thread: how often anybody was bound before, and where it may run otherwise.
    threads: BTreeMap<Pid, (u64, CpuSet)>,
    times: u64,
    watched: bool,
}

impl Bound {
    /// Has somebody watch.
    fn see_to_it(&mut self) -> Result<()> {
        if !self.watched {
            let watcher = std::thread::Builder::new().name("processors".into());
            watcher.spawn(watch).map_err(|_| Errno::EAGAIN)?;
            self.watched = true;
        }
        Ok(())
    }
}

/// Soon somebody will be bound: the watcher is started now rather than in a pause. It runs on for a while.
pub(crate) fn expect_somebody_bound() {
    if let Err(errno) = bound().see_to_it() {
        tracing::debug!(%errno, "cannot start a thread to watch who is bound");
    }
}

static BOUND: Mutex<Bound> =
    Mutex::new(Bound { threads: BTreeMap::new(), times: 0, watched: false });

fn bound() -> MutexGuard<'static, Bound> {
    BOUND.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the calling OS thread on one processor for as long as it lives, but for a few milliseconds at
/// most: a stop and a go take 7 us where tracer and tracee share it, and 139 us across two.
#[derive(Debug)]
pub(crate) struct Pin {
    before: CpuSet,
}

impl Pin {
    /// Moves to `processor`. Without a right to be there, nothing happens, but slower.
    pub(crate) fn to(processor: usize) -> Result<Self> {
        let before = sched_getaffinity(Pid::from_raw(0))?;
        let one = only(processor)?;
        let mut bound = bound();
        bound.see_to_it()?;
        bound.times += 1;
        let times = bound.times;
        bound.threads.insert(gettid(), (times, before));
        drop(bound);
        let pin = Self { before };
        sched_setaffinity(Pid::from_raw(0), &one)?;
        Ok(pin)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        bound().threads.remove(&gettid());
        if let Err(errno) = sched_setaffinity(Pid::from_raw(0), &self.before) {
            tracing::debug!(%errno, "cannot go back to all processors");
        }
    }
}

fn only(processor: usize) -> Result<CpuSet> {
    let mut one = CpuSet::new();
    one.set(processor)?;
    Ok(one)
}

/// Sets free whoever is bound twice in a row.
fn watch() {
    let (mut seen, mut idle) = (BTreeMap::new(), 0);
    while idle < IDLE_LOOKS {
        std::thread::sleep(LONG);
        let mut bound = bound();
        idle = if bound.threads.is_empty() { idle + 1 } else { 0 };
        let still = |tid: &Pid, times: u64| seen.get(tid) == Some(&times);
        bound.threads.retain(|tid, (times, before)| {
            // It may have ended meanwhile.
            !still(tid, *times) || sched_setaffinity(*tid, before).is_err()
        });
        seen = bound.threads.iter().map(|(tid, (times, _))| (*tid, *times)).collect();
        bound.watched = idle < IDLE_LOOKS;
    }
}

/// What `ask` finds out on another processor, unless that takes too long.
pub(crate) fn on<T: Send + 'static>(
    processor: usize,
    within: Duration,
    ask: impl FnOnce() -> Option<T> + Send + 'static,
) -> Option<T> {
    let one = only(processor).ok()?;
    let (tell, told) = channel();
    let there = move || {
        if sched_setaffinity(Pid::from_raw(0), &one).is_ok() {
            // Nobody listens any more if it took too long.
            tell.send(ask()).unwrap_or_default();
        }
    };
    // Before all others, if we may: it wants to run for some microseconds, and at once.
    let urgent = Urgent::begin();
    let started = std::thread::Builder::new().name("elsewhere".into()).spawn(there);
    drop(urgent);
    started.ok()?;
    told.recv_timeout(within).ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed() -> usize {
        let set = sched_getaffinity(Pid::from_raw(0)).unwrap();
        (0..CpuSet::count()).filter(|number| set.is_set(*number).unwrap()).count()
    }

    #[test]
    fn who_is_bound_for_long_is_set_free() {
        let before = allowed();
        let pin = Pin::to(0).unwrap();
        for _ in 0..1000 {
            if allowed() == before {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(allowed(), before);
        drop(pin);
        assert_eq!(allowed(), before);
    }

    #[test]
    fn somebody_elsewhere_is_asked_and_not_waited_for_too_long() {
        let minute = Duration::from_secs(60);
        assert_eq!(on(0, minute, || Some(allowed())), Some(1));
        let slow = || {
            std::thread::sleep(Duration::from_secs(1));
            Some(())
        };
        assert_eq!(on(0, Duration::from_millis(1), slow), None);
    }
}
