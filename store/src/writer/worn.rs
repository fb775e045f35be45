//! Chunks of which little is in use any more.
//!
//! Each change of a page leaves one behind that is stored all the same, for its chunk has others. So that
//! this does not go on for ever, of a leaf that holds too many of them the pages still in use of the
//! chunks that have fewest are stored anew, together: the threads read them from the parent.
use std::sync::Arc;

use super::open::{Inherited, Open};
use crate::chunk::{Name, PAGE};
use crate::error::Result;
use crate::index::{ByName, Names};
use crate::leaf::Entry;
use crate::packer::{Cut, Origin, Packer, Run};

/// To so many pages that are in use one may be that is not. Measured with 1 GiB of which 5 % changes each
/// time, drawn by lot: with 3, the first ten snapshots take 6 % more room and the last of them twice the
/// bytes; with 4, restoring the eightieth takes a seventh less processor time.
const USED: usize = 2;
/// And so many more, or what is small would be stored anew all the time.
const SOME: usize = 16;

/// How many pages of a chunk there are, and how many of them a leaf uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wear {
    stored: usize,
    used: usize,
}

impl Wear {
    fn dead(self) -> usize {
        self.stored.saturating_sub(self.used)
    }
}

impl Open {
    pub(super) fn renew_worn(&mut self, packer: &mut Packer) -> Result<()> {
        let Some(inherited) = self.inherited.clone() else { return Ok(()) };
        let worn = worn(wear(&self.kept_of_leaf, packer));
        if worn.is_empty() {
            return Ok(());
        }
        let is_worn = |entry: &mut Entry| worn.contains(&entry.name);
        let renewed: Vec<Entry> = self.kept_of_leaf.extract_if(.., is_worn).collect();
        let run = |entry: &Entry| {
            (entry.at, usize::try_from(packer.len(entry).unwrap_or_default()).unwrap_or_default())
        };
        let runs: Vec<Run> = renewed.iter().map(run).collect();
        let origin = from_parent(inherited, renewed);
        let how = (self.id, Cut::Scattered);
        runs.into_iter().try_for_each(|run| packer.announce(how, run, &origin))
    }
}

fn wear(kept: &[Entry], packer: &Packer) -> Vec<(Name, Wear)> {
    let pages = |bytes: u64| usize::try_from(bytes).unwrap_or_default().div_ceil(PAGE);
    let mut all = ByName::<Wear>::default();
    for entry in kept {
        let stored = || pages(packer.raw(&entry.name).unwrap_or_default().into());
        let one = all.entry(entry.name).or_insert_with(|| Wear { stored: stored(), used: 0 });
        one.used += pages(packer.len(entry).unwrap_or_default());
    }
    all.into_iter().collect()
}

/// Pure: which chunks are to be stored anew.
fn worn(mut chunks: Vec<(Name, Wear)>) -> Names {
    let used: usize = chunks.iter().map(|(_, one)| one.used).sum();
    let mut dead: usize = chunks.iter().map(|(_, one)| one.dead()).sum();
    chunks.sort_unstable_by_key(|(name, one)| (one.used * 1000 / one.stored.max(1), *name));
    let mut worn = Names::default();
    for (name, one) in chunks {
        if dead <= used / USED + SOME {
            break;
        }
        dead -= one.dead();
        worn.insert(name);
    }
    worn
}

/// Reads runs that consist of whole entries.
fn from_parent(inherited: Arc<Inherited>, entries: Vec<Entry>) -> Origin {
    Arc::new(move |runs, room| {
        let mut places = Vec::with_capacity(runs.len());
        let mut next = 0;
        for (at, len) in runs {
            places.push((*at, next));
            next += len;
        }
        let place = |at: u64| {
            let before = places.partition_point(|(run, _)| *run <= at).checked_sub(1)?;
            let (run, place) = places.get(before)?;
            Some(place + usize::try_from(at - run).ok()?)
        };
        let is_wanted = |entry: &&Entry| {
            let after = runs.partition_point(|(at, len)| at + *len as u64 <= entry.at);
            runs.get(after).is_some_and(|(at, _)| *at <= entry.at)
        };
        let wanted: Vec<Entry> = entries.iter().filter(is_wanted).copied().collect();
        let mut put = |at, bytes: &[u8]| {
            if let Some(room) = place(at).and_then(|from| room.get_mut(from..from + bytes.len())) {
                room.copy_from_slice(bytes);
            }
            Ok(())
        };
        Ok(inherited.reader.pieces(&wanted, 0..u64::MAX, &mut put)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_worn_most_goes_until_little_is_dead(
            chunks in prop::collection::vec((1..17usize, 0..17usize), 0..99),
        ) {
            let name = |number: usize| Name::of(&number.to_le_bytes());
            let wear = |(stored, used): &(usize, usize)| Wear { stored: *stored, used: *used };
            let chunks: Vec<_> = chunks.iter().enumerate().map(|(at, one)| (name(at), wear(one))).collect();
            let names = worn(chunks.clone());
            let (gone, left): (Vec<_>, Vec<_>) = chunks.iter().partition(|(name, _)| names.contains(name));
            let dead = |all: &[&(Name, Wear)]| all.iter().map(|(_, one)| one.dead()).sum::<usize>();
            let used: usize = chunks.iter().map(|(_, one)| one.used).sum();
            let limit = used / USED + SOME;
            prop_assert!(dead(&left) <= limit);
            prop_assert!(gone.is_empty() || dead(&gone) + dead(&left) > limit);
            let more = |(_, a): &(Name, Wear), (_, b): &(Name, Wear)| a.used * b.stored <= b.used * a.stored + b.stored * a.stored / 1000;
            prop_assert!(gone.iter().all(|one| left.iter().all(|other| more(one, other))));
        }
    }
}
