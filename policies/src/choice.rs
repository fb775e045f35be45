//! Recovery: which snapshot to go back to after a crash.
//!
//! The newest of the current line. A crash within 10 s after a restore goes one snapshot further
//! back, at most three back; then it starts from nothing, once; then it has failed. With 7 the
//! newest, crashes restore 7, 6, 5, 4, then start fresh. Snapshots taken after a restore count only
//! once the workload has lived 10 s beyond it: what it took before that may hold the very fault.
//! 60 s of running end the episode.
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::Unaccepted;

/// A crash sooner than this after a restore is blamed on the snapshot.
pub const BLAMED: Duration = Duration::from_secs(10);
/// Running so long ends the episode.
pub const RECOVERED: Duration = Duration::from_secs(60);
/// Steps back from the first choice of an episode.
pub const STEPS_MAX: u32 = 3;

/// What to do about a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Restore this snapshot; it is the usual one.
    Restore(u64),
    /// Restore this one, an older one than the last time.
    StepBack(u64),
    /// Start from nothing.
    Fresh,
    /// Give up.
    Fail,
}

/// Why, as a sentence's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It is the newest that counts.
    Newest,
    /// The one restored last crashed again at once, or could not be restored.
    CrashedAtOnce,
    /// There is none to restore.
    NoSnapshot,
    /// All that may be tried have been tried.
    TriedEnough,
    /// The fresh start crashed at once, too.
    FreshCrashed,
}

impl Reason {
    /// The sentence's end.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Newest => "it is the newest one that counts",
            Self::CrashedAtOnce => "the one restored before crashed again at once",
            Self::NoSnapshot => "there is no snapshot to restore",
            Self::TriedEnough => "it crashed again after each of the snapshots that may be tried",
            Self::FreshCrashed => "it crashed even after starting from nothing",
        }
    }
}

/// How the present run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Began {
    /// By itself: no recovery is going on.
    #[default]
    Normally,
    /// Somebody restored this one: an episode does not begin with a step back from it.
    ByHand(u64),
    Restored(u64),
    Fresh,
}

/// The state of recovery between crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovery {
    began: Began,
    /// The highest number there was when the present run began: newer ones are its own.
    newest_then: u64,
    steps: u32,
    tries: u32,
    fresh_used: bool,
}

impl Recovery {
    /// Somebody restored this snapshot. Those taken since are in doubt for a while; it is not.
    #[must_use]
    pub fn of_restored(seq: u64, newest: u64) -> Self {
        Self { began: Began::ByHand(seq), newest_then: newest, ..Self::default() }
    }

    /// How many tries this episode has had: the argument of [`crate::backoff::pause`].
    #[must_use]
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// Decides about a crash.
    ///
    /// `lived` is how long the workload ran since it was started or restored (zero when a restore
    /// failed), `newest_first` the restorable snapshots of the current line.
    pub fn crashed(&mut self, lived: Duration, newest_first: &[u64]) -> (Choice, Reason) {
        if lived >= RECOVERED {
            *self = Self::default();
        }
        let (choice, reason) = self.choose(lived, newest_first);
        match choice {
            Choice::Restore(seq) | Choice::StepBack(seq) => self.began = Began::Restored(seq),
            Choice::Fresh => (self.began, self.fresh_used) = (Began::Fresh, true),
            Choice::Fail => {}
        }
        self.newest_then = newest_first.first().copied().unwrap_or(0).max(self.newest_then);
        self.tries = self.tries.saturating_add(1);
        (choice, reason)
    }

    fn choose(&mut self, lived: Duration, newest_first: &[u64]) -> (Choice, Reason) {
        let at_once = lived < BLAMED;
        match self.began {
            Began::Restored(seq) if at_once => self.step_back(seq, newest_first),
            Began::ByHand(seq) if at_once && newest_first.contains(&seq) => {
                (Choice::Restore(seq), Reason::Newest)
            }
            Began::Fresh if at_once => (Choice::Fail, Reason::FreshCrashed),
            _ => match newest_first.first() {
                Some(seq) => {
                    self.steps = 0;
                    (Choice::Restore(*seq), Reason::Newest)
                }
                None => self.fresh(Reason::NoSnapshot),
            },
        }
    }

    /// The next older than the one that was restored: what came after it does not count.
    fn step_back(&mut self, restored: u64, newest_first: &[u64]) -> (Choice, Reason) {
        self.steps += 1;
        let older = newest_first.iter().copied().find(|seq| *seq < restored);
        match older.filter(|_| self.steps <= STEPS_MAX) {
            Some(seq) => (Choice::StepBack(seq), Reason::CrashedAtOnce),
            None => self.fresh(Reason::TriedEnough),
        }
    }

    fn fresh(&self, reason: Reason) -> (Choice, Reason) {
        if self.fresh_used {
            return (Choice::Fail, Reason::FreshCrashed);
        }
        (Choice::Fresh, reason)
    }

    /// Whether a snapshot may be named the newest: one taken by a run that began with a restore
    /// counts only once that run has lived long enough.
    #[must_use]
    pub fn counts(&self, seq: u64, lived: Duration) -> bool {
        matches!(self.began, Began::Normally) || lived >= BLAMED || seq <= self.newest_then
    }
}

/// For keeping it from one keeper to the next: `restored:7 9 1 2 fresh`.
impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.began {
            Began::Normally => f.write_str("normally")?,
            Began::ByHand(seq) => write!(f, "by-hand:{seq}")?,
            Began::Restored(seq) => write!(f, "restored:{seq}")?,
            Began::Fresh => f.write_str("fresh")?,
        }
        let used = if self.fresh_used { " fresh" } else { "" };
        write!(f, " {} {} {}{used}", self.newest_then, self.steps, self.tries)
    }
}

impl FromStr for Recovery {
    type Err = Unaccepted;

    fn from_str(text: &str) -> Result<Self, Unaccepted> {
        let read = || {
            let mut words = text.split(' ');
            let began = match words.next()?.split_once(':') {
                Some(("by-hand", seq)) => Began::ByHand(seq.parse().ok()?),
                Some(("restored", seq)) => Began::Restored(seq.parse().ok()?),
                None if text.starts_with("normally") => Began::Normally,
                None if text.starts_with("fresh") => Began::Fresh,
                _ => return None,
            };
            let newest_then = words.next()?.parse().ok()?;
            let (steps, tries) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            let fresh_used = words.next() == Some("fresh");
            Some(Self { began, newest_then, steps, tries, fresh_used })
        };
        read().ok_or_else(|| Unaccepted::new(text, "a state of recovery"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: Duration = Duration::from_secs(2);
    const LATER: Duration = Duration::from_secs(20);
    const LONG: Duration = Duration::from_secs(61);

    /// Crashes after these times with these snapshots, and what is chosen.
    fn play(crashes: &[(Duration, &[u64], Choice)]) {
        let mut recovery = Recovery::default();
        for (i, (lived, snapshots, expected)) in crashes.iter().enumerate() {
            assert_eq!(recovery.crashed(*lived, snapshots).0, *expected, "crash {i}");
        }
    }

    #[test]
    fn seven_six_five_four_fresh_failed() {
        let all: &[u64] = &[7, 6, 5, 4, 3, 2, 1];
        play(&[
            (LATER, all, Choice::Restore(7)),
            (AT_ONCE, all, Choice::StepBack(6)),
            (AT_ONCE, all, Choice::StepBack(5)),
            (AT_ONCE, all, Choice::StepBack(4)),
            (AT_ONCE, all, Choice::Fresh),
            (AT_ONCE, all, Choice::Fail),
        ]);
    }

    #[test]
    fn the_first_crash_restores_the_newest_however_soon_it_comes() {
        play(&[(AT_ONCE, &[2, 1], Choice::Restore(2))]);
    }

    #[test]
    fn without_snapshots_it_starts_fresh_once() {
        play(&[(AT_ONCE, &[], Choice::Fresh), (AT_ONCE, &[], Choice::Fail)]);
        play(&[(LATER, &[], Choice::Fresh), (LATER, &[], Choice::Fail)]);
        play(&[(LATER, &[], Choice::Fresh), (LONG, &[], Choice::Fresh)]);
    }

    #[test]
    fn few_snapshots_are_used_up_sooner() {
        play(&[
            (LATER, &[1], Choice::Restore(1)),
            (AT_ONCE, &[1], Choice::Fresh),
            (AT_ONCE, &[1], Choice::Fail),
        ]);
    }

    #[test]
    fn what_was_taken_at_once_after_a_restore_does_not_count() {
        play(&[
            (LATER, &[7, 6], Choice::Restore(7)),
            // It took 8 and crashed: 8 may hold the fault.
            (AT_ONCE, &[8, 7, 6], Choice::StepBack(6)),
        ]);
    }

    #[test]
    fn what_was_taken_later_does() {
        play(&[
            (LATER, &[7, 6], Choice::Restore(7)),
            (LATER, &[9, 8, 7, 6], Choice::Restore(9)),
            (AT_ONCE, &[9, 8, 7, 6], Choice::StepBack(8)),
        ]);
    }

    #[test]
    fn a_minute_ends_the_episode() {
        let all: &[u64] = &[7, 6, 5, 4, 3];
        play(&[
            (LATER, all, Choice::Restore(7)),
            (AT_ONCE, all, Choice::StepBack(6)),
            (LONG, all, Choice::Restore(7)),
            (AT_ONCE, all, Choice::StepBack(6)),
        ]);
    }

    #[test]
    fn a_newer_first_choice_may_step_back_three_times_again() {
        play(&[
            (LATER, &[7, 6, 5], Choice::Restore(7)),
            (AT_ONCE, &[7, 6, 5], Choice::StepBack(6)),
            (AT_ONCE, &[7, 6, 5], Choice::StepBack(5)),
            (LATER, &[9, 8, 5, 4, 3], Choice::Restore(9)),
            (AT_ONCE, &[9, 8, 5, 4, 3], Choice::StepBack(8)),
            (AT_ONCE, &[8, 5, 4, 3], Choice::StepBack(5)),
            (AT_ONCE, &[5, 4, 3], Choice::StepBack(4)),
            (AT_ONCE, &[4, 3], Choice::Fresh),
        ]);
    }

    #[test]
    fn what_somebody_restored_is_tried_once_more_and_only_then_blamed() {
        let mut recovery = Recovery::of_restored(7, 9);
        assert_eq!(recovery.to_string().parse(), Ok(recovery));
        assert_eq!(recovery.crashed(AT_ONCE, &[10, 7, 6]).0, Choice::Restore(7));
        assert_eq!(recovery.crashed(AT_ONCE, &[7, 6]).0, Choice::StepBack(6));
        let mut recovery = Recovery::of_restored(7, 9);
        assert_eq!(recovery.crashed(LATER, &[10, 7, 6]).0, Choice::Restore(10));
    }

    #[test]
    fn it_outlives_its_keeper() {
        let mut recovery = Recovery::default();
        for (lived, all) in [(LATER, &[7, 6][..]), (AT_ONCE, &[7, 6]), (AT_ONCE, &[6])] {
            assert_eq!(recovery.to_string().parse(), Ok(recovery));
            recovery.crashed(lived, all);
        }
        assert_eq!(recovery.to_string().parse(), Ok(recovery));
        for bad in ["", "restored:x 1 1 1", "normally 1"] {
            assert!(bad.parse::<Recovery>().is_err());
        }
    }

    #[test]
    fn snapshots_of_a_young_restored_run_do_not_count_yet() {
        let mut recovery = Recovery::default();
        assert!(recovery.counts(1, AT_ONCE));
        recovery.crashed(LATER, &[7]);
        assert!(recovery.counts(7, AT_ONCE));
        assert!(!recovery.counts(8, AT_ONCE));
        assert!(recovery.counts(8, LATER));
        assert_eq!(recovery.tries(), 1);
    }
}
