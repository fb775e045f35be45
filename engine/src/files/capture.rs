//! Reading the files that belong to a snapshot.
//!
//! The order is stat, fdatasync, read (KERNEL.md of the design: a write through a mapping to a page
//! that is dirty already does not move the times; flushing re-arms that, and a write between the
//! flush and a later stat would be hidden by it). In the pause only stat again: what has not changed
//! costs nothing. What has changed is read again, or gets a twin ([`super::twin`]) that is read later.
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
#[cfg(test)]
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, FsType, XFS_SUPER_MAGIC, statfs};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::fdatasync;

use super::candidates::{Candidate, of_inventory};
use super::contents;
use super::foreseen::{AsBefore, Looked};
use super::record::{Entry, EntryKind, Files, Inode, Stamp};
use super::scan::{Scanned, look, scan};
use super::twin::{Ahead, Twins};
use crate::error::{Error, Result, kernel};
use crate::image::{Contents, ImageSink};
use crate::inventory::{FileId, Inventory};

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
    previous: BTreeMap<Inode, &'a Entry>,
    next_id: u32,
    read: BTreeMap<(u64, u64), Read>,
    skipped: BTreeSet<PathBuf>,
    moving: BTreeSet<PathBuf>,
    bytes: u64,
    ahead: BTreeMap<Inode, Ahead>,
    twins: Twins,
    /// What will be so unless it changes.
    foreseen: Vec<Option<Entry>>,
    /// In the pause.
    standing: bool,
}

/// What is known of a file whose contents the sink has.
#[derive(Debug, Clone, Copy)]
struct Read {
    id: FileId,
    stamp: Stamp,
    settled: bool,
    /// Writes through mappings, too, would have to show in its stamp.
    flushed: bool,
}

/// A capture's result.
#[derive(Debug, Default)]
pub struct Captured {
    /// For the inventory.
    pub files: Files,
    /// For people.
    pub notes: Vec<String>,
    /// How much was read in all.
    pub bytes: u64,
    /// What can be read once the tree runs.
    pub twins: Twins,
}

/// Who was written this recently, in nanoseconds, will be written again before the pause.
const BUSY: i64 = 10_000_000_000;
/// If this much was given, the sink's threads are at work.
const LITTLE: u64 = 128 << 10;

impl<'a> Capture<'a> {
    /// Starts one; `previous` is the parent snapshot's record, empty if there is none.
    #[must_use]
    pub fn new(selection: &'a Selection, previous: &'a Files) -> Self {
        let last = previous.entries.iter().map(|entry| entry.id).max();
        let regular = previous.entries.iter().filter(|one| one.kind() == EntryKind::Regular);
        Self {
            selection,
            // Of several names, the first.
            previous: regular.rev().map(|one| (inode(one), one)).collect(),
            next_id: last.map_or(0, |id| id + 1),
            read: BTreeMap::new(),
            skipped: BTreeSet::new(),
            moving: BTreeSet::new(),
            bytes: 0,
            ahead: BTreeMap::new(),
            twins: Twins::default(),
            foreseen: Vec::new(),
            standing: false,
        }
    }

    /// Reads what is there while the program runs. Nothing it finds has to be true later.
    pub fn read_ahead(
        &mut self,
        candidates: &BTreeSet<Candidate>,
        sink: &mut dyn ImageSink,
    ) -> Result<()> {
        for one in candidates.iter().filter(|one| !one.read_only) {
            let bytes = self.ahead.values().map(|ahead| ahead.size).sum();
            if !self.is_spared(&one.path)
                && let Some(ahead) = Ahead::of(&one.path, bytes)
            {
                self.ahead.insert(ahead.inode, ahead);
            }
        }
        self.look_at_all(candidates, sink)?;
        Ok(sink.settle()?)
    }

    /// Reads what these files hold, as far as that is not read yet; of those that do not change until the pause,
    /// nothing has to be done in it.
    pub fn foresee(&mut self, looked: &[Looked], sink: &mut dyn ImageSink) -> Result<()> {
        for one in looked {
            let foreseen = self.entry_of(one, sink)?;
            self.foreseen.push(foreseen);
        }
        Ok(sink.settle()?)
    }

    /// `None`: it has changed already, or may have, or is none of our business.
    fn entry_of(&mut self, looked: &Looked, sink: &mut dyn ImageSink) -> Result<Option<Entry>> {
        let candidate = &looked.candidate;
        if self.is_spared(&candidate.path) {
            return Ok(None);
        }
        let Some(mut entry) = look(&candidate.path)?.filter(|entry| looked.is_told_by(entry))
        else {
            return Ok(None);
        };
        self.keep(&mut entry, false, sink)?;
        let read = self.read.get(&inode(&entry));
        let settled = read.is_some_and(|read| read.settled && read.stamp == entry.stamp);
        let read_only = candidate.read_only;
        Ok(settled.then_some(Entry { read_only, ..entry }))
    }

    /// In the pause: which files have to be looked at now. The others are as they were foreseen.
    pub fn candidates(&mut self, inventory: &Inventory, same: &AsBefore) -> BTreeSet<Candidate> {
        let mut foreseen = std::mem::take(&mut self.foreseen);
        let mut known = Vec::with_capacity(same.0.len());
        for (object, at) in &same.0 {
            let entry = at.map(|at| foreseen.get_mut(at).and_then(Option::take));
            if entry != Some(None) {
                known.push(*object);
                self.foreseen.push(entry.flatten());
            }
        }
        of_inventory(inventory, &known)
    }

    /// Right before the pause: what twins lag behind now they need not catch up with in it.
    pub fn catch_up(&self) {
        for ahead in self.ahead.values() {
            if let Err(error) = ahead.catch_up() {
                tracing::debug!(%error, "a twin lags behind");
            }
        }
    }

    /// In the pause: what there is, with what has changed since read again.
    pub fn finish(
        mut self,
        candidates: &BTreeSet<Candidate>,
        sink: &mut dyn ImageSink,
    ) -> Result<Captured> {
        self.moving.clear();
        self.standing = true;
        let before = self.bytes;
        let entries = self.look_at_all(candidates, sink)?;
        if self.bytes - before > LITTLE {
            // Threads that were started in the pause run before all others.
            sink.settle()?;
        }
        let tracked = self.selection.tracked.iter();
        let tracked = tracked.map(|path| path.as_os_str().as_bytes().to_vec()).collect();
        let files = Files { tracked, entries: self.with_foreseen(entries) };
        let skipped = self
            .skipped
            .iter()
            .map(|path| format!("{} is another file system's, and not tracked", path.display()));
        let moving = self
            .moving
            .iter()
            .map(|path| format!("{} was changed by others while it was read", path.display()));
        Ok(Captured {
            files,
            notes: skipped.chain(moving).collect(),
            bytes: self.bytes,
            twins: self.twins,
        })
    }

    /// All entries, by their paths.
    fn with_foreseen(&mut self, entries: BTreeMap<PathBuf, Entry>) -> Vec<Entry> {
        let foreseen = std::mem::take(&mut self.foreseen).into_iter().flatten();
        let foreseen = foreseen.filter(|one| !entries.contains_key(one.path()));
        let mut all: Vec<_> = foreseen.collect();
        all.extend(entries.into_values());
        all.sort_by(|one, other| one.path.cmp(&other.path));
        all
    }

    fn is_spared(&self, path: &Path) -> bool {
        self.selection.spared.iter().any(|spared| path.starts_with(spared))
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
            if self.is_spared(&candidate.path) {
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
            self.keep(entry, mapped.contains(&inode(entry)), sink)?;
        }
        Ok(entries)
    }

    /// Sees to it that the sink has this file's contents, and the entry says which they are.
    fn keep(&mut self, entry: &mut Entry, mapped: bool, sink: &mut dyn ImageSink) -> Result<()> {
        let inode = inode(entry);
        let read = match self.read.get(&inode).copied() {
            Some(read)
                if read.stamp == entry.stamp && read.settled && (!mapped || read.flushed) =>
            {
                Some(read)
            }
            Some(read) => {
                self.read.remove(&inode);
                sink.restart(Contents::File(read.id))?;
                self.take(read.id, entry, mapped, sink)?
            }
            None => self.first_look(entry, mapped, sink)?,
        };
        let Some(read) = read else { return Ok(()) };
        self.read.insert(inode, read);
        entry.id = read.id.0;
        entry.settled = read.settled;
        Ok(())
    }

    /// `None`: not now.
    fn first_look(
        &mut self,
        entry: &Entry,
        mapped: bool,
        sink: &mut dyn ImageSink,
    ) -> Result<Option<Read>> {
        let before = self.previous.get(&inode(entry)).copied();
        let told = mapped && tells_of_mapped_writes(entry.path());
        let same = |before: &Entry| before.settled && before.stamp == entry.stamp;
        let as_before = |before: &&Entry| same(before) && (!mapped || told);
        if let Some(before) = before.filter(as_before) {
            let id = before.file();
            sink.unchanged(Contents::File(id), 0..entry.stamp.size)?;
            return Ok(Some(Read { id, stamp: entry.stamp, settled: true, flushed: told }));
        }
        if !self.standing && self.is_for_a_twin(entry)? {
            return Ok(None);
        }
        let id = before.map_or(FileId(self.next_id), Entry::file);
        self.next_id = self.next_id.max(id.0 + 1);
        self.take(id, entry, mapped, sink)
    }

    /// Whether reading a file now would likely be for nothing.
    fn is_for_a_twin(&self, entry: &Entry) -> Result<bool> {
        Ok(self.ahead.contains_key(&inode(entry)) && now()? - entry.stamp.mtime < BUSY)
    }

    /// Has the sink read a file, now or later. `None`: it is not there, while the program runs.
    fn take(
        &mut self,
        id: FileId,
        entry: &Entry,
        mapped: bool,
        sink: &mut dyn ImageSink,
    ) -> Result<Option<Read>> {
        let path = entry.path();
        let file = match File::open(path) {
            // By now it has another name, or none: in the pause there will be one, or it is not asked for.
            Err(error) if error.kind() == ErrorKind::NotFound && !self.standing => return Ok(None),
            opened => opened.map_err(Error::file("open", path))?,
        };
        let looked_at = now()?;
        let before = Stamp::of(&file.metadata().map_err(Error::file("stat", path))?);
        let flushed = if self.standing && self.make_twin(id, &before) {
            true
        } else {
            // The pause is no time to wait for a disk.
            let flush = mapped && !self.standing && tells_of_mapped_writes(path);
            if flush {
                fdatasync(&file).map_err(kernel("fdatasync"))?;
            }
            let of = Contents::File(id);
            self.bytes += contents::give(&file, path, before.size, of, sink)?;
            flush
        };
        let after = Stamp::of(&file.metadata().map_err(Error::file("stat", path))?);
        if after != before {
            self.moving.insert(path.to_owned());
        }
        // Only what stood still, and long enough, may be taken for unchanged later.
        let settled = after == before && before.settled(looked_at) && (!mapped || flushed);
        Ok(Some(Read { id, stamp: before, settled, flushed }))
    }

    /// Whether there is one now. What was dirty was written back after the file was looked at.
    fn make_twin(&mut self, id: FileId, seen: &Stamp) -> bool {
        let Some(ahead) = self.ahead.remove(&(seen.device, seen.inode)) else { return false };
        if let Err(error) = ahead.catch_up() {
            tracing::debug!(%error, "no twin, against expectations");
            return false;
        }
        tracing::trace!(file = %id.0, size = seen.size, "a twin in the pause");
        self.twins.add(id, seen.size, ahead.into_twin());
        true
    }
}

/// Whether a write through a mapping to a page that is clean moves the times: seen to on these.
pub(super) fn tells_of_mapped_writes(path: &Path) -> bool {
    const THOSE: [FsType; 3] = [EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC];
    statfs(path).is_ok_and(|fs| THOSE.contains(&fs.filesystem_type()))
}

fn inode(entry: &Entry) -> Inode {
    (entry.stamp.device, entry.stamp.inode)
}

fn is(entry: &Entry, candidate: &Candidate) -> bool {
    entry.kind() == EntryKind::Regular
        && (entry.stamp.device, entry.stamp.inode) == (candidate.device, candidate.inode)
}

fn now() -> Result<i64> {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).map_err(kernel("clock_gettime"))?;
    Ok(now.tv_sec() * 1_000_000_000 + now.tv_nsec())
}

#[cfg(test)]
pub(super) fn inode_of(path: &Path) -> (u64, u64) {
    let meta = std::fs::metadata(path).expect("it is there");
    (meta.dev(), meta.ino())
}
