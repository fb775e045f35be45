//! Makes a file's contents what they were, touching only what differs.
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::fcntl::{FallocateFlags, fallocate};

use crate::error::{Error, Result};
use crate::image::{Contents, ImageSource};
use crate::inventory::FileId;
use crate::sparse::next_data;

/// Compares `file`, open for reading and writing, with what was stored; calls `before_change` once
/// if it has to be written.
pub(super) fn rewrite(
    file: &File,
    id: FileId,
    size: u64,
    image: &dyn ImageSource,
    before_change: &mut dyn FnMut() -> Result<()>,
) -> Result<bool> {
    let mut work = Rewrite { file, at: 0, changed: false, before_change, failed: None };
    let visited = image.bytes(Contents::File(id), &mut |at, bytes| work.visit(at, bytes, size));
    if let Some(failed) = work.failed.take() {
        return Err(failed);
    }
    visited?;
    work.finish(size)?;
    Ok(work.changed)
}

/// How much is compared at once.
const BLOCK: usize = 1 << 16;
/// And how much is written at least.
const PAGE: usize = 4096;

struct Rewrite<'a> {
    file: &'a File,
    /// Everything before is right.
    at: u64,
    changed: bool,
    before_change: &'a mut dyn FnMut() -> Result<()>,
    /// An error of ours, carried past the source's.
    failed: Option<Error>,
}

impl Rewrite<'_> {
    fn visit(&mut self, at: u64, bytes: &[u8], size: u64) -> io::Result<()> {
        // The last block of a store may be longer than the file.
        let room = usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX);
        let bytes = bytes.get(..bytes.len().min(room)).unwrap_or_default();
        let done = self.zeros_until(at).and_then(|()| self.write(at, bytes));
        done.map_err(|error| {
            self.failed = Some(error);
            io::Error::other("rolling back")
        })
    }

    fn finish(&mut self, size: u64) -> Result<()> {
        self.zeros_until(size)?;
        let length = self.file.metadata()?.len();
        if length != size {
            self.change()?;
            self.file.set_len(size)?;
        }
        Ok(())
    }

    /// Makes holes of those pages up to `end` that hold anything.
    fn zeros_until(&mut self, end: u64) -> Result<()> {
        while let Some((start, stop)) = next_data(self.file, self.at)? {
            if start >= end {
                break;
            }
            self.at = start;
            let stop = stop.min(end);
            while self.at < stop {
                let want = usize::try_from(stop - self.at).unwrap_or(BLOCK).min(BLOCK);
                let zeros = vec![0; want];
                let there = self.there(self.at, want)?;
                for (from, to) in differing(zeros.get(..there.len()).unwrap_or_default(), &there) {
                    self.change()?;
                    self.punch(self.at + from as u64, self.at + to as u64)?;
                }
                self.at += want as u64;
            }
        }
        self.at = self.at.max(end);
        Ok(())
    }

    /// What is there now, up to the end of the file.
    fn there(&self, at: u64, len: usize) -> Result<Vec<u8>> {
        let (mut room, mut used) = (vec![0; len], 0);
        while used < len {
            match self.file.read_at(room.get_mut(used..).unwrap_or_default(), at + used as u64)? {
                0 => break,
                got => used += got,
            }
        }
        room.truncate(used);
        Ok(room)
    }

    fn punch(&self, start: u64, stop: u64) -> Result<()> {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let span = (i64::try_from(start), i64::try_from(stop - start));
        if let (Ok(offset), Ok(length)) = span
            && fallocate(self.file, flags, offset, length).is_ok()
        {
            return Ok(());
        }
        // A file system without holes.
        let zeros = vec![0; BLOCK];
        let mut at = start;
        while at < stop {
            let want = usize::try_from(stop - at).unwrap_or(zeros.len()).min(zeros.len());
            self.file.write_all_at(zeros.get(..want).unwrap_or_default(), at)?;
            at += want as u64;
        }
        Ok(())
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        for (index, block) in bytes.chunks(BLOCK).enumerate() {
            let at = at + (index * BLOCK) as u64;
            let there = self.there(at, block.len())?;
            for (from, to) in differing(block, &there) {
                self.change()?;
                let pages = block.get(from..to).unwrap_or_default();
                self.file.write_all_at(pages, at + from as u64)?;
            }
        }
        self.at = self.at.max(at + bytes.len() as u64);
        Ok(())
    }

    fn change(&mut self) -> Result<()> {
        if !self.changed {
            (self.before_change)()?;
            self.changed = true;
        }
        Ok(())
    }
}

/// Where pages begin and end that differ from what is there, neighbours joined; what is not there does.
fn differing<'a>(block: &'a [u8], there: &'a [u8]) -> impl Iterator<Item = (usize, usize)> + 'a {
    let differs = |from: usize| {
        let to = block.len().min(from + PAGE);
        block.get(from..to) != there.get(from..to)
    };
    let mut pages = (0..block.len()).step_by(PAGE).peekable();
    std::iter::from_fn(move || {
        let first = pages.find(|from| differs(*from))?;
        let mut end = first + PAGE;
        while pages.next_if(|from| differs(*from)).is_some() {
            end += PAGE;
        }
        Some((first, end.min(block.len())))
    })
}
