//! A stream being written, block by block.
//!
//! What becomes of a block is told piece by piece: bytes that are given, runs that are announced, pages
//! that are as in the parent. When the next block begins, bytes and runs become chunks, and of the
//! parent's chunks those pages are referred to: nothing is read for them. When the next leaf begins, what
//! has worn away to a few pages is stored anew ([`super::worn`]).
use std::ops::Range;
use std::sync::Arc;

use crate::chunk::{LARGEST, PAGE};
use crate::error::{Error, Result};
use crate::leaf::{BLOCK, Entries, Entry, LEAF};
use crate::packer::{Cut, Origin, Packer, Run, full_runs};
use crate::reader::Reader;

const PAGE_BYTES: u64 = PAGE as u64;

/// What the parent has of a stream.
#[derive(Debug)]
pub(super) struct Inherited {
    pub(super) reader: Arc<Reader>,
    pub(super) entries: Entries,
}

pub(super) struct Open {
    name: String,
    /// Of this writing: [`super::Writer::restart`] gives another.
    pub(super) id: u32,
    /// As far as it was asked for.
    pub(super) inherited: Option<Arc<Inherited>>,
    /// The leaf that is being filled, by its number.
    leaf: u64,
    /// The block that is being filled.
    at: u64,
    /// Its bytes that were given, and zeros before them.
    given: Vec<u8>,
    /// What of it was announced, and who reads that.
    runs: Vec<Run>,
    origin: Option<Origin>,
    /// What of it is as in the parent.
    kept: Entries,
    /// Likewise, of the blocks before it in its leaf.
    pub(super) kept_of_leaf: Entries,
    /// Whether something else is in that leaf too.
    changed: bool,
    /// Up to here it was announced, or is as in the parent: in whole pages.
    told: u64,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open")
            .field("name", &self.name)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl Open {
    pub(super) fn new(name: &str, id: u32) -> Self {
        Self {
            name: name.to_owned(),
            id,
            inherited: None,
            leaf: 0,
            at: 0,
            given: Vec::new(),
            runs: Vec::new(),
            origin: None,
            kept: Entries::new(),
            kept_of_leaf: Entries::new(),
            changed: false,
            told: 0,
        }
    }

    /// Adds bytes.
    pub(super) fn give(
        &mut self,
        mut at: u64,
        mut bytes: &[u8],
        packer: &mut Packer,
    ) -> Result<()> {
        while !bytes.is_empty() {
            self.turn_to(at, packer)?;
            self.changed = true;
            if at < self.told {
                self.take_back(at, packer)?;
            }
            let offset = self.offset(at);
            let (now, later) = bytes.split_at(bytes.len().min(LARGEST - offset));
            if now.len() == LARGEST && self.is_fresh() {
                // Whole blocks, which is most of memory, need not be gathered.
                self.at = at + BLOCK;
                self.cut(at, now, packer)?;
            } else {
                self.gather(offset, now);
            }
            (at, bytes) = (at + now.len() as u64, later);
        }
        Ok(())
    }

    /// Adds runs that are yet to be read.
    pub(super) fn announce(
        &mut self,
        runs: &[Run],
        origin: &Origin,
        packer: &mut Packer,
    ) -> Result<()> {
        if !self.origin.as_ref().is_some_and(|one| Arc::ptr_eq(one, origin)) {
            self.hand_over(packer)?;
            self.origin = Some(Arc::clone(origin));
        }
        for &(mut at, mut len) in runs {
            while len > 0 {
                self.turn_to(at, packer)?;
                self.changed = true;
                let take = len.min(LARGEST - self.offset(at));
                self.claim(at, at + take as u64)?;
                match self.runs.last_mut() {
                    Some((start, len)) if *start + *len as u64 == at => *len += take,
                    _ => self.runs.push((at, take)),
                }
                (at, len) = (at + take as u64, len - take);
            }
        }
        Ok(())
    }

    /// Adds what the parent has in a range.
    pub(super) fn unchanged(&mut self, range: &Range<u64>, packer: &mut Packer) -> Result<()> {
        let Some(inherited) = self.inherited.clone() else { return Ok(()) };
        let (entries, reader) = (&inherited.entries, &inherited.reader);
        let first = entries.partition_point(|entry| entry.block() < range.start / BLOCK);
        let rest = entries.get(first..).unwrap_or_default();
        for block in rest.chunk_by(|a, b| a.block() == b.block()) {
            let Some(at) = block.first().map(|entry| entry.block() * BLOCK) else { continue };
            if at >= range.end {
                break;
            }
            self.turn_to(at, packer)?;
            let whole = range.start <= at && (range.end - at >= BLOCK || range.end == u64::MAX);
            if block.iter().any(|entry| packer.len(entry).is_none()) {
                // It lies in a pack that is to go.
                let mut give = |at, bytes: &[u8]| self.give(at, bytes, packer);
                reader.pieces(block, range.clone(), &mut give)?;
            } else if whole && self.is_fresh() {
                self.kept_of_leaf.extend(block);
                self.at = at + BLOCK;
            } else {
                block.iter().try_for_each(|entry| self.keep(entry, range, packer))?;
            }
        }
        Ok(())
    }

    /// Refers to those pages of an entry that lie in a range. What is not a whole page is given.
    fn keep(&mut self, entry: &Entry, range: &Range<u64>, packer: &mut Packer) -> Result<()> {
        let end = entry.at + packer.len(entry).unwrap_or_default();
        let (from, to) = (range.start.max(entry.at), range.end.min(end));
        if from >= to {
            return Ok(());
        }
        let first = from.next_multiple_of(PAGE_BYTES).min(to);
        let last = if to == end { to } else { first.max(to - to % PAGE_BYTES) };
        self.copy(entry, from..first, packer)?;
        if first < last {
            self.claim(first, last)?;
            self.refer(entry, first..last, packer);
        }
        self.copy(entry, last..to, packer)
    }

    fn refer(&mut self, entry: &Entry, range: Range<u64>, packer: &Packer) {
        let chunk = packer.raw(&entry.name).unwrap_or_default();
        let mut next = entry.cut(range.start, range.end, chunk);
        // One that goes on with the next pages of the same chunk is the same one.
        let start_of =
            |one: &Entry| u64::from(one.pages.map_or(0, |pages| pages.first)) * PAGE_BYTES;
        let goes_on = |one: &&Entry| {
            let end = one.at + packer.len(one).unwrap_or_default();
            one.name == next.name
                && end == next.at
                && next.at - one.at == start_of(&next) - start_of(one)
        };
        if let Some(before) = self.kept.last().filter(goes_on).copied() {
            self.kept.pop();
            next = before.cut(before.at, range.end, chunk);
        }
        self.kept.push(next);
    }

    /// Gives what the parent has in a range that is no page.
    fn copy(&mut self, entry: &Entry, range: Range<u64>, packer: &mut Packer) -> Result<()> {
        let Some(inherited) = self.inherited.clone().filter(|_| !range.is_empty()) else {
            return Ok(());
        };
        let mut give = |at, bytes: &[u8]| self.give(at, bytes, packer);
        inherited.reader.pieces(std::slice::from_ref(entry), range, &mut give)
    }

    /// A file's last page goes on: what the parent has of it is given, for more is to follow.
    fn take_back(&mut self, at: u64, packer: &mut Packer) -> Result<()> {
        let page = at - at % PAGE_BYTES;
        let end = |entry: &Entry| entry.at + packer.len(entry).unwrap_or_default();
        let ends_here = |entry: &Entry| end(entry) <= at && page < end(entry);
        let Some(last) = self.kept.pop_if(|entry| ends_here(entry)) else {
            return Err(self.descends());
        };
        let end = end(&last);
        self.told = page;
        if last.at < page {
            self.refer(&last, last.at..page, packer);
        }
        self.copy(&last, page..end, packer)
    }

    /// Pages are told of once, and ascend.
    fn claim(&mut self, at: u64, end: u64) -> Result<()> {
        let given = (self.at + self.given.len() as u64).next_multiple_of(PAGE_BYTES);
        if !at.is_multiple_of(PAGE_BYTES) || at < self.told.max(given) {
            return Err(self.descends());
        }
        self.told = end.next_multiple_of(PAGE_BYTES);
        Ok(())
    }

    /// Whether nothing was told of the block yet.
    fn is_fresh(&self) -> bool {
        self.given.is_empty() && self.told <= self.at
    }

    fn offset(&self, at: u64) -> usize {
        usize::try_from(at - self.at).unwrap_or(LARGEST)
    }

    /// Puts bytes in their place among those that were given.
    fn gather(&mut self, offset: usize, bytes: &[u8]) {
        if self.given.len() < offset {
            self.given.resize(offset, 0);
        }
        let known = self.given.len().min(offset + bytes.len());
        let (old, new) = bytes.split_at(known - offset);
        self.given.get_mut(offset..known).unwrap_or_default().copy_from_slice(old);
        self.given.extend_from_slice(new);
    }

    /// Moves on to the block that this lies in.
    pub(super) fn turn_to(&mut self, at: u64, packer: &mut Packer) -> Result<()> {
        let block = at - at % BLOCK;
        if block < self.at {
            return Err(self.descends());
        }
        if block > self.at {
            self.close(packer)?;
            self.at = block;
        }
        if block / LEAF != self.leaf {
            self.close_leaf(packer)?;
            self.leaf = block / LEAF;
        }
        Ok(())
    }

    fn close(&mut self, packer: &mut Packer) -> Result<()> {
        let mut given = std::mem::take(&mut self.given);
        self.cut(self.at, &given, packer)?;
        given.clear();
        self.given = given;
        self.hand_over(packer)?;
        self.kept_of_leaf.append(&mut self.kept);
        Ok(())
    }

    fn close_leaf(&mut self, packer: &mut Packer) -> Result<()> {
        if std::mem::take(&mut self.changed) {
            self.renew_worn(packer)?;
        }
        let id = self.id;
        packer.entries.extend(self.kept_of_leaf.drain(..).map(|entry| (id, entry)));
        Ok(())
    }

    /// Lets threads read what was announced.
    pub(super) fn hand_over(&mut self, packer: &mut Packer) -> Result<()> {
        let Some(origin) = &self.origin else { return Ok(()) };
        let cut = if self.kept.is_empty() { Cut::Blocks } else { Cut::Scattered };
        self.runs.drain(..).try_for_each(|run| packer.announce((self.id, cut), run, origin))
    }

    /// Cuts bytes into runs without zero pages.
    fn cut(&self, at: u64, bytes: &[u8], packer: &mut Packer) -> Result<()> {
        full_runs(bytes).try_for_each(|(from, to)| {
            packer.push(self.id, at + from as u64, bytes.get(from..to).unwrap_or_default())
        })
    }

    fn descends(&self) -> Error {
        Error::Misuse { what: format!("offsets of {} do not ascend", self.name) }
    }
}
