//! Makes a file's contents what they were, touching only what differs.
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::fcntl::{FallocateFlags, fallocate};

use super::capture::next_data;
use crate::error::{Error, Result};
use crate::image::{Contents, ImageSource};
use crate::inventory::FileId;

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

    /// Makes a hole where there are data up to `end`.
    fn zeros_until(&mut self, end: u64) -> Result<()> {
        while let Some((start, stop)) = next_data(self.file, self.at)? {
            if start >= end {
                break;
            }
            let stop = stop.min(end);
            if !self.is_zero(start, stop)? {
                self.change()?;
                self.punch(start, stop)?;
            }
            self.at = stop;
        }
        self.at = self.at.max(end);
        Ok(())
    }

    fn is_zero(&self, start: u64, stop: u64) -> Result<bool> {
        let mut room = vec![0; BLOCK];
        let mut at = start;
        while at < stop {
            let want = usize::try_from(stop - at).unwrap_or(room.len()).min(room.len());
            let part = room.get_mut(..want).unwrap_or_default();
            let got = self.file.read_at(part, at)?;
            if got == 0 || part.iter().take(got).any(|byte| *byte != 0) {
                return Ok(got == 0);
            }
            at += got as u64;
        }
        Ok(true)
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
            let mut room = vec![0; block.len()];
            let same = self.file.read_exact_at(&mut room, at).is_ok() && room == block;
            if !same {
                self.change()?;
                self.file.write_all_at(block, at)?;
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
