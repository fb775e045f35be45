//! How far a checkpoint or restore is: bytes that have passed, told now and then.
use std::time::{Duration, Instant};

use crate::wire::Progress;

/// Not more often than this.
const PACE: Duration = Duration::from_millis(100);

/// Whom to tell.
pub type Tell<'a> = &'a mut (dyn FnMut(Progress) + Send);

pub(super) struct Meter<'a> {
    tell: Tell<'a>,
    done: u64,
    of: u64,
    last: Instant,
}

impl<'a> Meter<'a> {
    pub(super) fn new(tell: Tell<'a>) -> Self {
        Self { tell, done: 0, of: 0, last: now() }
    }

    /// About so many will be all.
    pub(super) fn about(&mut self, of: u64) {
        self.of = of;
    }

    pub(super) fn passed(&mut self, bytes: usize) {
        self.done += bytes as u64;
        if self.last.elapsed() >= PACE {
            self.last = now();
            // What was expected is a guess: more than all is never said.
            let of = if self.of == 0 { 0 } else { self.of.max(self.done) };
            (self.tell)(Progress { done: self.done, of });
        }
    }
}

#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}
