//! Reaping while we attach.
//!
//! `PTRACE_SEIZE` waits for an exec(2) under way (`cred_guard_mutex`), which waits until all other
//! threads of its process are reaped: by us, if we have attached to them. So while a seize takes long,
//! a second OS thread reaps those that have ended. It takes exits only: a stop is for whoever attached.
use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::inventory::{Pid, Tid};
use crate::sys::wait;

/// A seize that takes longer than this is waiting for somebody.
const LONG: Duration = Duration::from_millis(2);

/// What a seize might be waiting for.
#[derive(Debug, Default)]
struct Waiting {
    /// How often one has begun.
    times: u64,
    /// Of which process.
    process: Option<Pid>,
    /// Those that we have attached to.
    attached: BTreeMap<Pid, Vec<Tid>>,
}

/// The second OS thread; it ends when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Reaper {
    waiting: Arc<Mutex<Waiting>>,
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Reaper {
    /// Runs `attach`, to a thread of `pid`, while the dead among those attached before are reaped, if it
    /// takes long.
    pub(super) fn during<T>(&mut self, pid: Pid, attach: impl FnOnce() -> T) -> T {
        let mut waiting = lock(&self.waiting);
        if !waiting.attached.contains_key(&pid) {
            drop(waiting);
            return attach();
        }
        (waiting.times, waiting.process) = (waiting.times + 1, Some(pid));
        drop(waiting);
        let waiting = self.waiting.clone();
        self.thread.get_or_insert_with(|| {
            let (keep, end) = channel();
            (keep, std::thread::spawn(move || reap(&waiting, &end)))
        });
        let result = attach();
        lock(&self.waiting).process = None;
        result
    }

    /// We are attached to this one.
    pub(super) fn attached(&mut self, pid: Pid, tid: Tid) {
        lock(&self.waiting).attached.entry(pid).or_default().push(tid);
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reap(waiting: &Mutex<Waiting>, end: &std::sync::mpsc::Receiver<()>) {
    let mut seen_before = 0;
    while end.recv_timeout(LONG) == Err(RecvTimeoutError::Timeout) {
        let waiting = lock(waiting);
        let leader = waiting.process.map(|pid| pid.0);
        if waiting.times == seen_before
            && let Some(attached) = waiting.process.and_then(|pid| waiting.attached.get(&pid))
        {
            // Not the leader: exec(2) reaps that one itself, and gives its number to the survivor.
            let others = attached.iter().filter(|tid| Some(tid.0) != leader);
            others.for_each(|tid| wait::reap(tid.0));
        }
        seen_before = waiting.times;
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        if let Some((keep, thread)) = self.thread.take() {
            drop(keep);
            if thread.join().is_err() {
                tracing::error!("the reaper of a freeze has panicked");
            }
        }
    }
}
