//! Keeping only what the rules keep, and freeing the space of the rest.
use policies::retention::{self, Candidate, Rules};
use store::{Snapshot, Store};

use super::settled_at;
use crate::error::Result;
use crate::home::Home;

/// How many events of a workload are kept.
const EVENTS: u64 = 10_000;

/// Removes what no rule keeps; says which, and up to where the input will not be asked for again.
pub fn retain(home: &Home, name: &str, keep_last: u64) -> Result<(Vec<u64>, u64)> {
    let store = Store::open(home.dir(), store::Options::default())?;
    let mut all = store.snapshots(Some(name))?;
    all.reverse();
    let line = store.restorable(name)?;
    let candidate = |one: &Snapshot| Candidate {
        seq: one.seq,
        pinned: one.pinned,
        restorable: one.restorable(),
        current: line.contains(&one.seq),
    };
    let candidates: Vec<_> = all.iter().map(candidate).collect();
    let rules = Rules { keep_last: Some(keep_last), in_use: true };
    let judged = retention::judge(&candidates, rules);
    let gone: Vec<u64> =
        judged.iter().filter(|(_, verdict)| !verdict.keeps()).map(|(seq, _)| *seq).collect();
    if !gone.is_empty() {
        store.forget(name, &gone)?;
        store.trim_events(name, EVENTS)?;
    }
    let oldest = all.iter().rev().find(|one| !gone.contains(&one.seq));
    let input = oldest.and_then(|one| settled_at(home, name, one.seq).ok());
    Ok((gone, input.map_or(0, |settled| settled.input)))
}

/// Frees what no snapshot needs any more; `false`: somebody is at the store, later then.
pub fn free_space(home: &Home) -> Result<bool> {
    let store = Store::open(home.dir(), store::Options::default())?;
    Ok(store.prune()?.is_some())
}
