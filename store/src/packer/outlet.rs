//! Chunks ready to be written, one behind the other, until they are worth a write.
//!
//! Each thread has an outlet of its own and compresses right into it, so that bytes are moved once on
//! their way from a program's memory to the disk.
use std::ops::Range;
use std::sync::PoisonError;

use super::Shared;
use crate::chunk::{self, Codec, Compressor, Name};
use crate::error::{Error, Result};
use crate::medium::Medium;
use crate::pack::{self, ALIGN, HEADER, Listing, Location};

/// How much is written at once, about.
const ROOM: usize = 512 << 10;
/// How much the kernel is told to write back at once: less costs more of the processor.
const STEP: u64 = 4 << 20;

#[derive(Debug, Default)]
pub(super) struct Outlet {
    room: Vec<u8>,
    /// Where in it the first byte is that is aligned.
    start: usize,
    used: usize,
    /// Their places count from `start` on.
    chunks: Listing,
    compressor: Compressor,
}

impl Outlet {
    /// Adds a chunk, and writes what is there if it does not fit any more.
    pub(super) fn add(&mut self, name: Name, bytes: &[u8], shared: &Shared) -> Result<()> {
        let most = HEADER + chunk::room_for(bytes.len());
        if self.used + most > ROOM {
            self.write(shared, true)?;
        }
        if self.used == 0 && self.room.len() < most.max(ROOM) + 2 * ALIGN {
            self.room = vec![0; most.max(ROOM) + 2 * ALIGN];
            self.start = self.room.as_ptr().align_offset(ALIGN) % ALIGN;
        }
        let too_long = || Error::Misuse { what: "a chunk is too long".into() };
        let place = self.room.get_mut(self.start + self.used..).unwrap_or_default();
        let (head, body) = place.split_first_chunk_mut::<HEADER>().ok_or_else(too_long)?;
        let (may, before) = (shared.allowance.is_left(), self.compressor.made());
        let smaller = if may { self.compressor.compress(bytes, body) } else { None };
        let (codec, len) = if let Some(smaller) = smaller {
            smaller
        } else {
            body.get_mut(..bytes.len()).ok_or_else(too_long)?.copy_from_slice(bytes);
            (Codec::Raw, bytes.len())
        };
        shared.allowance.count(bytes.len(), self.compressor.made() - before);
        let [raw, stored] = [bytes.len(), len].map(u32::try_from);
        let (Ok(raw), Ok(stored)) = (raw, stored) else { return Err(too_long()) };
        *head = pack::header(&name, codec, raw, body.get(..len).unwrap_or_default())?;
        let at = (self.used + HEADER) as u64;
        self.chunks.push((name, Location { pack: 0, at, stored, raw, codec }));
        self.used += HEADER + len;
        Ok(())
    }

    /// Writes what is left.
    pub(super) fn finish(&mut self, shared: &Shared) -> Result<()> {
        self.write(shared, false)
    }

    fn write(&mut self, shared: &Shared, much: bool) -> Result<()> {
        if self.chunks.is_empty() {
            return Ok(());
        }
        let len = self.used as u64;
        let extent = shared.extent(self.chunks.drain(..), len, much)?;
        let end = self.start + std::mem::take(&mut self.used);
        let medium = shared.store.medium();
        if let Some(direct) = &extent.direct {
            let whole = self.start + (end - self.start).next_multiple_of(ALIGN);
            self.room.get_mut(end..whole).unwrap_or_default().fill(0);
            let bytes = self.room.get(self.start..whole).unwrap_or_default();
            return medium.write_past_cache((direct, &extent.file), &extent.path, bytes, extent.at);
        }
        let bytes = self.room.get(self.start..end).unwrap_or_default();
        let turn = shared.turn.lock().unwrap_or_else(PoisonError::into_inner);
        medium.write_at(&extent.file, &extent.path, &[bytes], extent.at)?;
        drop(turn);
        if let Some(behind) = behind(extent.at, len) {
            Medium::hurry(&extent.file, behind);
        }
        Ok(())
    }
}

/// Pure: the steps before the one that ends in what was just written. Other threads have filled them by now.
fn behind(at: u64, len: u64) -> Option<Range<u64>> {
    let before = |at: u64| (at / STEP).saturating_sub(1) * STEP;
    let behind = before(at)..before(at + len);
    (!behind.is_empty()).then_some(behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_hurried_once_when_the_next_is_full() {
        const WRITE: u64 = 700 << 10;
        let all: Vec<_> = (0..100).filter_map(|count| behind(count * WRITE, WRITE)).collect();
        assert!(all.windows(2).all(|two| two[0].end == two[1].start), "{all:?}");
        assert_eq!((all[0].clone(), all[15].end), (0..STEP, 16 * STEP));
        assert_eq!(behind(0, 3 * STEP), Some(0..2 * STEP));
    }
}
