//! Reading the files that belong to a snapshot.
//!
//! The order is stat, fdatasync, read (KERNEL.md of the design: a write through a mapping to a page
//! that is dirty already does not move the times; flushing re-arms that, and a write between the
//! flush and a later stat would be hidden by it). In the pause only stat again: what has not changed
//! costs nothing.
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
#[cfg(test)]
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Whence, fdatasync, lseek};

use super::candidates::Candidate;
use super::record::{Entry, EntryKind, Files, Stamp};
use super::scan::{Scanned, look, scan};
use crate::error::{Error, Result, kernel};
use crate::image::{Contents, ImageSink};
use crate::inventory::FileId;

/// What is looked after beside the files that the tree is writing.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Files and directories, absolute.
    pub tracked: Vec<PathBuf>,
    /// Never looked into, even inside a tracked tree: our own state directory.
    pub spared: Vec<PathBuf>,
}

/// A capture in progress.
#[derive(Debug)]
pub struct Capture<'a> {
    selection: &'a Selection,
    /// Of the parent snapshot.
    previous: &'a Files,
    next_id: u32,
    read: BTreeMap<(u64, u64), Read>,
    skipped: BTreeSet<PathBuf>,
    moving: BTreeSet<PathBuf>,
    bytes: u64,
}

/// What is known of a file whose contents the sink has.
#[derive(Debug, Clone, Copy)]
struct Read {
    id: FileId,
    stamp: Stamp,
    settled: bool,
}

/// A capture's result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captured {
    /// For the inventory.
    pub files: Files,
    /// For people.
    pub notes: Vec<String>,
    /// How much was read in all.
    pub bytes: u64,
}

impl<'a> Capture<'a> {
    /// Starts one; `previous` is the parent snapshot's record, empty if there is none.
    #[must_use]
    pub fn new(selection: &'a Selection, previous: &'a Files) -> Self {
        let last = previous.entries.iter().map(|entry| entry.id).max();
        Self {
            selection,
            previous,
            next_id: last.map_or(0, |id| id + 1),
            read: BTreeMap::new(),
            skipped: BTreeSet::new(),
            moving: BTreeSet::new(),
            bytes: 0,
        }
    }

    /// Reads what is there while the program runs. Nothing it finds has to be true later.
    pub fn read_ahead(
        &mut self,
        candidates: &BTreeSet<Candidate>,
        sink: &mut dyn ImageSink,
    ) -> Result<()> {
        self.look_at_all(candidates, sink).map(|_| ())
    }

    /// In the pause: what there is, with what has changed since read again.
    pub fn finish(
        mut self,
        candidates: &BTreeSet<Candidate>,
        sink: &mut dyn ImageSink,
    ) -> Result<Captured> {
        self.moving.clear();
        let entries = self.look_at_all(candidates, sink)?;
        let tracked = self.selection.tracked.iter();
        let tracked = tracked.map(|path| path.as_os_str().as_bytes().to_vec()).collect();
        let files = Files { tracked, entries: entries.into_values().collect() };
        let skipped = self
            .skipped
            .iter()
            .map(|path| format!("{} is another file system's, and not tracked", path.display()));
        let moving = self
            .moving
            .iter()
            .map(|path| format!("{} was changed by others while it was read", path.display()));
        Ok(Captured { files, notes: skipped.chain(moving).collect(), bytes: self.bytes })
    }

    fn look_at_all(
        &mut self,
        candidates: &BTreeSet<Candidate>,
        sink: &mut dyn ImageSink,
    ) -> Result<BTreeMap<PathBuf, Entry>> {
        let Scanned { mut entries, skipped } =
            scan(&self.selection.tracked, &self.selection.spared)?;
        self.skipped.extend(skipped);
        let mapped: BTreeSet<_> = candidates
            .iter()
            .filter(|candidate| candidate.mapped)
            .map(|candidate| (candidate.device, candidate.inode))
            .collect();
        for candidate in candidates {
            if self.selection.spared.iter().any(|spared| candidate.path.starts_with(spared)) {
                continue;
            }
            if let Some(entry) = look(&candidate.path)?.filter(|entry| is(entry, candidate)) {
                // What is tracked is put back whoever reads it.
                let read_only = candidate.read_only && !entries.contains_key(&candidate.path);
                entries.insert(candidate.path.clone(), Entry { read_only, ..entry });
            }
        }
        let regular = |entry: &&mut Entry| entry.kind() == EntryKind::Regular;
        for entry in entries.values_mut().filter(regular) {
            let inode = (entry.stamp.device, entry.stamp.inode);
            self.keep(entry, mapped.contains(&inode), sink)?;
        }
        Ok(entries)
    }

    /// Sees to it that the sink has this file's contents, and the entry says which they are.
    fn keep(&mut self, entry: &mut Entry, mapped: bool, sink: &mut dyn ImageSink) -> Result<()> {
        let inode = (entry.stamp.device, entry.stamp.inode);
        let known = self.read.get(&inode).copied();
        let read = match known {
            Some(read) if read.stamp == entry.stamp && read.settled && !mapped => read,
            Some(read) => {
                sink.restart(Contents::File(read.id))?;
                self.read(read.id, entry, mapped, sink)?
            }
            None => self.first_look(entry, mapped, sink)?,
        };
        self.read.insert(inode, read);
        entry.id = read.id.0;
        entry.settled = read.settled;
        Ok(())
    }

    fn first_look(
        &mut self,
        entry: &Entry,
        mapped: bool,
        sink: &mut dyn ImageSink,
    ) -> Result<Read> {
        let before = self.previous.by_inode(entry.stamp.device, entry.stamp.inode);
        match before {
            Some(before) if before.settled && before.stamp == entry.stamp && !mapped => {
                let id = before.file();
                sink.unchanged(Contents::File(id), 0..entry.stamp.size)?;
                Ok(Read { id, stamp: entry.stamp, settled: true })
            }
            Some(before) => self.read(before.file(), entry, mapped, sink),
            None => {
                let id = FileId(self.next_id);
                self.next_id += 1;
                self.read(id, entry, mapped, sink)
            }
        }
    }

    fn read(
        &mut self,
        id: FileId,
        entry: &Entry,
        mapped: bool,
        sink: &mut dyn ImageSink,
    ) -> Result<Read> {
        let path = entry.path();
        let file = File::open(path).map_err(Error::file("open", path))?;
        let looked_at = now()?;
        let before = Stamp::of(&file.metadata().map_err(Error::file("stat", path))?);
        let on_tmpfs = fstatfs(&file).is_ok_and(|fs| fs.filesystem_type() == TMPFS_MAGIC);
        if mapped && !on_tmpfs {
            fdatasync(&file).map_err(kernel("fdatasync"))?;
        }
        self.bytes += copy(&file, path, before.size, Contents::File(id), sink)?;
        let after = Stamp::of(&file.metadata().map_err(Error::file("stat", path))?);
        if after != before {
            self.moving.insert(path.to_owned());
        }
        // Only what stood still, and long enough, may be taken for unchanged later.
        let settled = after == before && before.settled(looked_at) && !(mapped && on_tmpfs);
        Ok(Read { id, stamp: before, settled })
    }
}

fn is(entry: &Entry, candidate: &Candidate) -> bool {
    entry.kind() == EntryKind::Regular
        && (entry.stamp.device, entry.stamp.inode) == (candidate.device, candidate.inode)
}

fn now() -> Result<i64> {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).map_err(kernel("clock_gettime"))?;
    Ok(now.tv_sec() * 1_000_000_000 + now.tv_nsec())
}

/// How much is read at once.
const WINDOW: usize = 1 << 20;

/// Copies the data of a file, not its holes, up to `size`: what is appended meanwhile is not ours.
fn copy(
    file: &File,
    path: &Path,
    size: u64,
    to: Contents,
    sink: &mut dyn ImageSink,
) -> Result<u64> {
    let mut room = vec![0; WINDOW];
    let (mut at, mut copied) = (0, 0);
    while let Some((start, end)) = next_data(file, at)?.filter(|(start, _)| *start < size) {
        at = start;
        let end = end.min(size);
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(WINDOW).min(WINDOW);
            let (part, _) = room.split_at_mut(want);
            let got = file.read_at(part, at).map_err(Error::file("read", path))?;
            if got == 0 {
                return Ok(copied);
            }
            sink.bytes(to, at, part.get(..got).unwrap_or_default())?;
            at += got as u64;
            copied += got as u64;
        }
    }
    Ok(copied)
}

/// The next stretch of data at or behind `at`.
pub(super) fn next_data(file: &File, at: u64) -> Result<Option<(u64, u64)>> {
    let offset = |at: u64| i64::try_from(at).map_err(|_| Error::Kernel("lseek", Errno::EOVERFLOW));
    let start = match lseek(file, offset(at)?, Whence::SeekData) {
        Ok(start) => start,
        Err(Errno::ENXIO) => return Ok(None),
        Err(errno) => return Err(Error::Kernel("lseek", errno)),
    };
    let end = lseek(file, start, Whence::SeekHole).map_err(kernel("lseek"))?;
    Ok(Some((start.unsigned_abs(), end.unsigned_abs())))
}

#[cfg(test)]
pub(super) fn inode_of(path: &Path) -> (u64, u64) {
    let meta = std::fs::metadata(path).expect("it is there");
    (meta.dev(), meta.ino())
}
