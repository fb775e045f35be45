//! Reaping while we attach.
//!
//! `PTRACE_SEIZE` waits for an exec(2) under way (`cred_guard_mutex`), which waits until all other
//! threads of its process are reaped: by us, if we have attached to them. So while a seize takes long,
//! a second OS thread reaps those that have ended. It takes exits only: a stop is for whoever attached.
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::inventory::Tid;
use crate::sys::wait;

/// A seize that takes longer than this is waiting for somebody.
const LONG: Duration = Duration::from_millis(2);

/// Whose exits a seize might be waiting for; with the number of the seize.
type Waiting = Arc<Mutex<(u64, Vec<Tid>)>>;

/// The second OS thread; it ends when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Reaper {
    waiting: Waiting,
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Reaper {
    /// Runs `attach` while the dead among `attached` are reaped, if it takes long.
    pub(super) fn during<T>(&mut self, attached: Vec<Tid>, attach: impl FnOnce() -> T) -> T {
        if attached.is_empty() {
            return attach();
        }
        let waiting = self.waiting.clone();
        self.thread.get_or_insert_with(|| {
            let (keep, end) = channel();
            let waiting = waiting.clone();
            (keep, std::thread::spawn(move || reap(&waiting, &end)))
        });
        announce(&waiting, attached);
        let result = attach();
        announce(&waiting, Vec::new());
        result
    }
}

fn announce(waiting: &Waiting, attached: Vec<Tid>) {
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    *waiting = (waiting.0 + 1, attached);
}

fn reap(waiting: &Waiting, end: &std::sync::mpsc::Receiver<()>) {
    let mut seen_before = 0;
    while end.recv_timeout(LONG) == Err(RecvTimeoutError::Timeout) {
        let waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.0 == seen_before {
            waiting.1.iter().for_each(|tid| wait::reap(tid.0));
        }
        seen_before = waiting.0;
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
