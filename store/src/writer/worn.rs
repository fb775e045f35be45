//! Blocks that came to be of too many pieces.
//!
//! Each change of a page leaves one more piece behind, and a page less in use of a chunk that is stored
//! all the same. So that neither goes on for ever, such a block is stored anew as one chunk: the threads
//! read what is new of it, and the rest from the parent.
use std::sync::Arc;

use super::open::{Inherited, Open};
use crate::chunk::{LARGEST, Name, PAGE};
use crate::error::Result;
use crate::leaf::Entry;
use crate::packer::{Origin, Packer, Run};

/// A block of more pieces is stored anew. Measured with 1 GiB of which 1 % changes each time, drawn by lot,
/// after 60 and 150 generations: with 4 a snapshot takes twice the time and bytes; with 12 and 16 it
/// writes up to 60 % less, but indexes are so long that it takes longer all the same, and restoring,
/// which with 8 is as fast as of a full snapshot, takes up to twice as long.
const PIECES: usize = 8;
/// And one that keeps more pages stored that it does not use: as many as it has.
const DEAD: usize = LARGEST / PAGE;

impl Open {
    pub(super) fn renew_if_worn(&mut self, packer: &mut Packer) -> Result<()> {
        let pieces = self.kept.len() + self.runs.len() + usize::from(!self.given.is_empty());
        if self.kept.is_empty() || (pieces <= PIECES && dead(&self.kept, packer) <= DEAD) {
            return Ok(());
        }
        let Some(inherited) = self.inherited.clone() else { return Ok(()) };
        let kept = std::mem::take(&mut self.kept);
        if !self.given.is_empty() {
            let at = self.at;
            return inherited.reader.pieces(&kept, 0..u64::MAX, &mut |from, bytes| {
                self.gather(usize::try_from(from - at).unwrap_or_default(), bytes);
                Ok(())
            });
        }
        let runs = std::mem::take(&mut self.runs);
        let ends = kept.iter().map(|entry| entry.at + packer.len(entry).unwrap_or_default());
        let ends = ends.chain(runs.iter().map(|(at, len)| at + *len as u64));
        let len = usize::try_from(ends.max().unwrap_or(self.at) - self.at).unwrap_or_default();
        let run = (self.at, len);
        packer.announce(self.id, run, &joined(run, inherited, kept, (runs, self.origin.clone())))
    }
}

/// How many pages of their chunks these do not use.
fn dead(kept: &[Entry], packer: &Packer) -> usize {
    let pages = |bytes: u64| usize::try_from(bytes).unwrap_or_default().div_ceil(PAGE);
    let stored = |name: &Name| pages(packer.raw(name).unwrap_or_default().into());
    let is_first =
        |at: usize, one: &Entry| !kept.iter().take(at).any(|other| other.name == one.name);
    let chunks = kept.iter().enumerate().filter(|(at, one)| is_first(*at, one));
    let stored: usize = chunks.map(|(_, one)| stored(&one.name)).sum();
    let used = kept.iter().map(|one| pages(packer.len(one).unwrap_or_default())).sum();
    stored.saturating_sub(used)
}

/// Reads a block: some runs from where they are, the rest from the parent.
fn joined(
    (start, _): Run,
    inherited: Arc<Inherited>,
    kept: Vec<Entry>,
    (runs, origin): (Vec<Run>, Option<Origin>),
) -> Origin {
    Arc::new(move |_, room| {
        room.fill(0);
        let mut put = |at: u64, bytes: &[u8]| {
            let from = usize::try_from(at - start).unwrap_or(usize::MAX);
            if let Some(place) = room.get_mut(from..from.saturating_add(bytes.len())) {
                place.copy_from_slice(bytes);
            }
        };
        if let Some(origin) = &origin {
            let mut new = vec![0; runs.iter().map(|(_, len)| len).sum()];
            origin(&runs, &mut new)?;
            let mut rest = new.as_slice();
            for (at, len) in &runs {
                let (now, later) = rest.split_at(*len);
                put(*at, now);
                rest = later;
            }
        }
        let mut visit = |at, bytes: &[u8]| {
            put(at, bytes);
            Ok(())
        };
        Ok(inherited.reader.pieces(&kept, 0..u64::MAX, &mut visit)?)
    })
}
