//! After a crash: which snapshot, after which pause, or none any more.
//!
//! The newest snapshot of the current line; a crash within `SOON` of coming back goes one further
//! back, at most `MOST_BACK`; then fresh, once; then it has failed. Snapshots taken since the
//! workload last came back count only once it has lived `SOON` beyond that, for they may hold what
//! makes it crash. `QUIET` of running ends the episode. Pauses double; too many restarts in the
//! window are a failure too.
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_secs(60);
const MOST_BACK: usize = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What comes after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// A restore.
    Restore {
        /// Of this snapshot.
        seq: u64,
        /// So many steps back from the newest.
        back: usize,
        /// After this pause.
        pause: Duration,
    },
    /// A start from nothing.
    Fresh {
        /// After this pause.
        pause: Duration,
    },
    /// Nothing.
    Fail {
        /// Why.
        why: &'static str,
    },
}

/// What was tried in this episode.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Episode {
    /// What there is to try, newest first.
    candidates: Vec<u64>,
    back: usize,
    fresh: bool,
    restarts: u32,
}

/// What recovery has to remember.
#[derive(Debug)]
pub struct Recovery {
    /// Snapshots of the current line, oldest first.
    line: Vec<u64>,
    /// So many of the line's were there when the workload last came up.
    counted: usize,
    up_at: Duration,
    episode: Option<Episode>,
    restarts: Vec<Duration>,
    limit: usize,
    window: Duration,
}

impl Recovery {
    /// With these snapshots on the line.
    #[must_use]
    pub fn new(line: Vec<u64>, limit: usize, window: Duration) -> Self {
        let counted = line.len();
        let (episode, restarts) = (None, Vec::new());
        Self { line, counted, up_at: Duration::ZERO, episode, restarts, limit, window }
    }

    /// A new line begins: snapshots of earlier runs are none of ours.
    pub fn start_line(&mut self) {
        self.line.clear();
        self.counted = 0;
    }

    /// Whether there is no snapshot on the line yet.
    #[must_use]
    pub fn is_new_line(&self) -> bool {
        self.line.is_empty()
    }

    /// What came after `seq` is abandoned; a person decided, so no episode goes on.
    pub fn go_back_to(&mut self, seq: u64) {
        self.line.retain(|one| *one <= seq);
        self.counted = self.line.len();
        self.episode = None;
    }

    /// A new snapshot.
    pub fn add(&mut self, seq: u64, _now: Duration) {
        self.line.push(seq);
    }

    /// A snapshot that is no more.
    pub fn forget(&mut self, seq: u64) {
        let counted = self.line.iter().take(self.counted).filter(|one| **one != seq).count();
        self.line.retain(|one| *one != seq);
        self.counted = counted;
    }

    /// Whether a crash is being dealt with.
    #[must_use]
    pub fn in_episode(&self) -> bool {
        self.episode.is_some()
    }

    /// The workload runs again.
    pub fn up(&mut self, now: Duration) {
        self.up_at = now;
        // Before the first crash nothing casts doubt on any snapshot.
        self.counted = if self.episode.is_some() { self.line.len() } else { usize::MAX };
    }

    /// It crashed.
    pub fn crashed(&mut self, now: Duration) -> Next {
        let lived = now.saturating_sub(self.up_at);
        if lived >= QUIET {
            self.episode = None;
        }
        match &mut self.episode {
            Some(episode) if lived < SOON => episode.back += 1,
            _ => {
                let restarts = self.episode.as_ref().map_or(0, |episode| episode.restarts);
                let candidates = self.line.iter().rev().copied().collect();
                self.episode = Some(Episode { candidates, restarts, ..Episode::default() });
                self.counted = self.line.len();
            }
        }
        let counted = self.counted;
        self.line.truncate(counted);
        self.next(now)
    }

    /// A snapshot that was to be restored could not be.
    pub fn not_restored(&mut self, now: Duration) -> Next {
        if let Some(episode) = &mut self.episode {
            episode.back += 1;
        }
        self.next(now)
    }

    fn next(&mut self, now: Duration) -> Next {
        let Some(pause) = self.pause(now) else {
            return Next::Fail { why: "it was started again too often" };
        };
        let Some(episode) = &mut self.episode else { return Next::Fresh { pause } };
        let back = episode.back;
        if let Some(seq) = episode.candidates.get(back).filter(|_| back <= MOST_BACK) {
            let seq = *seq;
            self.line.retain(|one| *one <= seq);
            return Next::Restore { seq, back, pause };
        }
        if episode.fresh {
            return Next::Fail { why: "it crashed even when started afresh" };
        }
        episode.fresh = true;
        self.line.clear();
        Next::Fresh { pause }
    }

    /// How long to wait before the next start, unless there were too many.
    pub fn pause(&mut self, now: Duration) -> Option<Duration> {
        let window = self.window;
        self.restarts.retain(|at| now.saturating_sub(*at) < window);
        self.restarts.push(now);
        if self.restarts.len() > self.limit {
            return None;
        }
        let episode = self.episode.get_or_insert_default();
        let doubled = FIRST_PAUSE.saturating_mul(1u32 << episode.restarts.min(16));
        episode.restarts += 1;
        Some(doubled.min(LONGEST_PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn seq(next: Next) -> Option<u64> {
        match next {
            Next::Restore { seq, .. } => Some(seq),
            _ => None,
        }
    }

    #[test]
    fn it_steps_back_then_starts_fresh_once_then_fails() {
        let mut it = Recovery::new((1..=7).collect(), 10, at(60));
        it.up(at(0));
        for (second, expected) in [(100, 7), (101, 6), (102, 5), (103, 4)] {
            assert_eq!(seq(it.crashed(at(second))), Some(expected));
            it.up(at(second));
        }
        assert!(matches!(it.crashed(at(104)), Next::Fresh { .. }));
        it.up(at(104));
        assert!(matches!(it.crashed(at(105)), Next::Fail { .. }));
    }

    #[test]
    fn what_was_taken_since_counts_only_after_ten_seconds() {
        let mut it = Recovery::new(vec![1, 2], 10, at(60));
        it.up(at(0));
        assert_eq!(seq(it.crashed(at(100))), Some(2));
        it.up(at(100));
        it.add(3, at(101));
        assert_eq!(seq(it.crashed(at(105))), Some(1));
        it.up(at(105));
        it.add(4, at(106));
        assert_eq!(seq(it.crashed(at(116))), Some(4));
    }

    #[test]
    fn a_quiet_minute_ends_the_episode_and_its_pauses() {
        let mut it = Recovery::new(vec![1], 10, at(60));
        it.up(at(0));
        let pause = |next| match next {
            Next::Restore { pause, .. } | Next::Fresh { pause } => pause.as_millis(),
            Next::Fail { .. } => 0,
        };
        assert_eq!(pause(it.crashed(at(100))), 100);
        it.up(at(100));
        assert_eq!(pause(it.crashed(at(120))), 200);
        it.up(at(120));
        assert_eq!(pause(it.crashed(at(190))), 100);
    }

    #[test]
    fn too_many_restarts_in_the_window_are_a_failure() {
        let mut it = Recovery::new(vec![1], 2, at(60));
        it.up(at(0));
        for second in [11, 22] {
            assert_eq!(seq(it.crashed(at(second))), Some(1));
            it.up(at(second));
        }
        assert!(matches!(it.crashed(at(33)), Next::Fail { .. }));
    }
}
