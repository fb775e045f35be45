//! What lies close together in a stream, read together.
//!
//! What a leaf refers to lies in as many packs as there were snapshots that changed it, and there side by
//! side. So chunks are read in the order in which they lie, neighbours at once, and each is checked
//! and decompressed once, however many of its pages are wanted.
use std::ops::Range;
use std::sync::Arc;

use super::Reader;
use crate::chunk::{self, Codec, Name};
use crate::error::Result;
use crate::index::{Index, Stored};
use crate::leaf::{Entry, LEAF, Pages};
use crate::pack::{HEADER, Location};

/// How much is read at once, about: it should stay in a processor's cache.
const READ: u64 = 256 << 10;
/// What lies between neighbours and is not wanted, at most.
const GAP: u64 = 16 << 10;

/// Entries that are read together: those of a leaf.
pub(super) fn windows(entries: &[Entry]) -> Vec<&[Entry]> {
    entries.chunk_by(|a, b| a.at / LEAF == b.at / LEAF).collect()
}

/// Some entries of a stream, and their bytes.
#[derive(Debug, Default)]
pub(super) struct Window {
    bytes: Vec<u8>,
    /// Offset in the stream, and place in `bytes`, neighbours joined.
    pieces: Vec<(u64, Range<usize>)>,
    wanted: Vec<Wanted>,
    /// For chunks as they are stored, and for one of which parts are wanted.
    stored: Vec<u8>,
    chunk: Vec<u8>,
}

/// Where the bytes of an entry come from, and where they go.
#[derive(Debug)]
struct Wanted {
    name: Name,
    location: Location,
    pages: Option<Pages>,
    place: Range<usize>,
}

impl Wanted {
    fn start(&self) -> u64 {
        self.location.at.saturating_sub(HEADER as u64)
    }

    fn end(&self) -> u64 {
        self.location.at.saturating_add(self.location.stored.into())
    }
}

impl Window {
    /// Its pieces: their offsets in the stream, and their bytes.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let bytes = |place: &Range<usize>| self.bytes.get(place.clone()).unwrap_or_default();
        self.pieces.iter().map(move |(at, place)| (*at, bytes(place)))
    }

    /// Reads all of these.
    pub(super) fn fill(&mut self, reader: &Reader, entries: &[Entry]) -> Result<()> {
        let mut index = reader.index();
        if self.lay_out(reader, &index, entries)?.is_some() {
            // Pruning may have moved it.
            index = reader.reload()?;
            if let Some(name) = self.lay_out(reader, &index, entries)? {
                return Err(reader.of_this(index.missing(&name)));
            }
        }
        let mut wanted = std::mem::take(&mut self.wanted);
        wanted.sort_unstable_by_key(|one| (one.location.pack, one.location.at, one.place.start));
        let mut start = None;
        let near = |one: &Wanted, next: &Wanted| {
            let far = next.start() > one.end().saturating_add(GAP);
            let from = *start.get_or_insert(one.start());
            let long = next.start() != one.start() && next.end().saturating_sub(from) > READ;
            let together = one.location.pack == next.location.pack && !far && !long;
            start = start.filter(|_| together);
            together
        };
        let done = wanted.chunk_by(near).try_for_each(|some| self.read(reader, &index, some));
        self.wanted = wanted;
        done
    }

    /// Makes room for all; says what is not in the index.
    fn lay_out(
        &mut self,
        reader: &Reader,
        index: &Index,
        entries: &[Entry],
    ) -> Result<Option<Name>> {
        self.pieces.clear();
        self.wanted.clear();
        let mut used = 0;
        for Entry { at, name, pages } in entries.iter().copied() {
            let Some(location) = index.chunks.get(&name).copied() else { return Ok(Some(name)) };
            let len = Entry { at, name, pages }.len(location.raw);
            let len = len.and_then(|len| usize::try_from(len).ok());
            let end = used + len.ok_or_else(|| reader.too_much())?;
            match self.pieces.last_mut() {
                Some((start, piece)) if *start + piece.len() as u64 == at => piece.end = end,
                _ => self.pieces.push((at, used..end)),
            }
            self.wanted.push(Wanted { name, location, pages, place: used..end });
            used = end;
        }
        if self.bytes.len() < used {
            self.bytes.resize(used, 0);
        }
        Ok(None)
    }

    /// Reads neighbours, of one pack.
    fn read(&mut self, reader: &Reader, index: &Arc<Index>, some: &[Wanted]) -> Result<()> {
        let (Some(first), Some(last)) = (some.first(), some.last()) else { return Ok(()) };
        let start = first.start();
        let len = usize::try_from(last.end() - start).unwrap_or(usize::MAX);
        let mut stored = std::mem::take(&mut self.stored);
        stored.resize(stored.len().max(len), 0);
        let all = stored.get_mut(..len).unwrap_or_default();
        let read = index.read_at(&first.location, start, all);
        let whole = read.is_ok();
        let within = |at: u64| usize::try_from(at - start).unwrap_or(usize::MAX);
        let done = some.chunk_by(|a, b| a.start() == b.start()).try_for_each(|parts| {
            let Some(one) = parts.first() else { return Ok(()) };
            let bytes = all.get(within(one.start())..within(one.end())).filter(|_| whole);
            self.unpack(reader, index, parts, bytes.unwrap_or_default())
        });
        self.stored = stored;
        done
    }

    /// Puts parts of a chunk, or all of it, where they belong.
    fn unpack(
        &mut self,
        reader: &Reader,
        index: &Index,
        parts: &[Wanted],
        stored: &[u8],
    ) -> Result<()> {
        let Some(Wanted { name, location, place, .. }) = parts.first() else { return Ok(()) };
        let sound = index.check(name, location, stored).ok();
        if let (Some(found), [Wanted { pages: None, .. }]) = (&sound, parts) {
            let into = self.bytes.get_mut(place.clone()).unwrap_or_default();
            if chunk::unpack(found.codec, found.bytes, into).is_some() {
                return Ok(());
            }
        }
        let raw = location.raw as usize;
        self.chunk.resize(self.chunk.len().max(raw), 0);
        let room = self.chunk.get_mut(..raw).unwrap_or_default();
        let bytes = match sound {
            Some(Stored { codec: Codec::Raw, bytes }) => {
                Some(bytes).filter(|bytes| bytes.len() == raw)
            }
            Some(found) => chunk::unpack(found.codec, found.bytes, room).map(|()| &*room),
            None => None,
        };
        let bytes = if let Some(bytes) = bytes {
            bytes
        } else {
            // Damage: it may be whole elsewhere.
            self.chunk.clear();
            reader.chunk(name, &mut Vec::new(), &mut self.chunk)?;
            self.chunk.as_slice()
        };
        for Wanted { pages, place, .. } in parts {
            let part = pages.map_or(Some(bytes), |pages| pages.of(bytes));
            let into = self.bytes.get_mut(place.clone()).unwrap_or_default();
            let part = part.filter(|part| part.len() == into.len());
            into.copy_from_slice(part.ok_or_else(|| reader.too_much())?);
        }
        Ok(())
    }
}
