//! Which snapshots are kept, each with the reason.
use std::fmt;

/// A snapshot, as far as keeping it is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its number.
    pub seq: u64,
    /// Somebody pinned it.
    pub pinned: bool,
    /// It can be restored, as far as is known.
    pub restorable: bool,
    /// It is on the current line.
    pub current: bool,
}

/// What to keep. No rule removes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// The newest so many.
    pub keep_last: Option<u64>,
    /// The workload runs, or is to be restored at boot.
    pub in_use: bool,
}

/// What becomes of a snapshot, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It stays: nobody asked for anything to go.
    KeepNoRule,
    /// It stays: pinned.
    KeepPinned,
    /// It stays: this one among the newest, from 1.
    KeepLast(u64),
    /// It stays: damaged, but no older than the last ones, for whoever wants to look into that.
    KeepDamaged,
    /// It stays: a running workload would be brought back from it.
    KeepNeeded,
    /// It goes.
    Forget,
}

impl Verdict {
    /// Whether it stays.
    #[must_use]
    pub fn keeps(self) -> bool {
        self != Self::Forget
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeepNoRule => f.write_str("no rule says what to forget"),
            Self::KeepPinned => f.write_str("pinned"),
            Self::KeepLast(place) => write!(f, "last snapshots, number {place}"),
            Self::KeepDamaged => f.write_str("damaged, among the last snapshots"),
            Self::KeepNeeded => {
                f.write_str("the newest that a running workload can be restored from")
            }
            Self::Forget => f.write_str("no rule keeps it"),
        }
    }
}

/// Judges snapshots, given newest first; the verdicts are in the same order.
///
/// What is damaged takes no place among the last ones, or a row of bad snapshots would push out
/// the good ones; it stays as long as others of its age do, unless there are more such than good ones
/// are asked for.
#[must_use]
pub fn judge(newest_first: &[Candidate], rules: Rules) -> Vec<(u64, Verdict)> {
    let restorable = |one: &&Candidate| one.restorable && one.current;
    let needed = newest_first.iter().find(restorable).filter(|_| rules.in_use).map(|one| one.seq);
    let (mut place, mut damaged) = (0, 0);
    let mut verdict = |one: &Candidate| {
        let Some(last) = rules.keep_last else { return Verdict::KeepNoRule };
        place += u64::from(one.restorable);
        damaged += u64::from(!one.restorable);
        match one {
            one if one.restorable && place <= last => Verdict::KeepLast(place),
            one if one.pinned => Verdict::KeepPinned,
            one if !one.restorable && place < last && damaged <= last => Verdict::KeepDamaged,
            one if Some(one.seq) == needed => Verdict::KeepNeeded,
            _ => Verdict::Forget,
        }
    };
    newest_first.iter().map(|one| (one.seq, verdict(one))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(seq: u64) -> Candidate {
        Candidate { seq, pinned: false, restorable: true, current: true }
    }

    fn kept(all: &[Candidate], keep_last: u64, in_use: bool) -> Vec<u64> {
        let rules = Rules { keep_last: Some(keep_last), in_use };
        let judged = judge(all, rules).into_iter();
        judged.filter(|(_, verdict)| verdict.keeps()).map(|(seq, _)| seq).collect()
    }

    #[test]
    fn the_last_ones_stay() {
        let all = [one(5), one(4), one(3), one(2)];
        assert_eq!(kept(&all, 2, true), [5, 4]);
        assert_eq!(kept(&all, 0, false), []);
        assert!(judge(&all, Rules::default()).iter().all(|(_, v)| *v == Verdict::KeepNoRule));
    }

    #[test]
    fn what_is_pinned_or_needed_stays_too() {
        let pinned = Candidate { pinned: true, ..one(2) };
        assert_eq!(kept(&[one(5), one(4), pinned], 1, true), [5, 2]);
        // After a rollback to 3: 5 and 4 are newer, but 3 is what a crash would go back to.
        let abandoned = |seq| Candidate { current: false, ..one(seq) };
        assert_eq!(kept(&[abandoned(5), abandoned(4), one(3), one(2)], 1, true), [5, 3]);
        assert_eq!(kept(&[one(3)], 0, true), [3]);
    }

    #[test]
    fn damaged_ones_do_not_push_out_good_ones() {
        let bad = |seq| Candidate { restorable: false, ..one(seq) };
        assert_eq!(kept(&[bad(6), bad(5), one(4), one(3), one(2)], 2, true), [6, 5, 4, 3]);
        assert_eq!(kept(&[bad(7), bad(6), bad(5), one(4), one(3)], 2, true), [7, 6, 4, 3]);
        assert_eq!(kept(&[one(5), bad(4), one(3), bad(2)], 2, true), [5, 4, 3]);
    }

    proptest! {
        #[test]
        fn what_a_running_workload_needs_is_never_removed(
            flags in prop::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), 0..20),
            keep_last in 0_u64..5,
        ) {
            let all: Vec<_> = flags.iter().rev().enumerate().rev()
                .map(|(seq, (pinned, restorable, current))| Candidate {
                    seq: seq as u64, pinned: *pinned, restorable: *restorable, current: *current,
                }).collect();
            let kept = kept(&all, keep_last, true);
            if let Some(needed) = all.iter().find(|one| one.restorable && one.current) {
                prop_assert!(kept.contains(&needed.seq));
            }
            prop_assert!(all.iter().filter(|one| one.pinned).all(|one| kept.contains(&one.seq)));
        }
    }
}
