//! Reading a snapshot back.
//!
//! What is long is read ahead, checked and decompressed by two more threads; the caller's thread gets
//! it in order.
mod window;

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use self::window::{Window, windows};
use crate::api::StreamInfo;
use crate::chunk::{LARGEST, Name};
use crate::error::{Error, Result};
use crate::facts::Snapshot;
use crate::index::Index;
use crate::layout::{Lock, Store};
use crate::leaf::{self, Entries, Entry};
use crate::line::Line;
use crate::manifest::Manifest;
use crate::pack;
use crate::writer::RECORD;

/// No record that we read may claim to be longer.
const LARGEST_RECORD: usize = 4 << 30;
/// How many threads read ahead, and how far each.
const THREADS: usize = 2;
const AHEAD: usize = 2;

/// A snapshot being read; nothing that it needs is pruned meanwhile.
#[derive(Debug)]
pub struct Reader {
    store: Store,
    manifest: Manifest,
    snapshot: Snapshot,
    index: Mutex<Arc<Index>>,
    _lock: Lock,
}

impl Store {
    /// Opens a snapshot.
    pub fn read(&self, workload: &str, seq: u64) -> Result<Reader> {
        self.trusted_folder(workload)?;
        let (manifest, lock) = Manifest::hold(self, workload, seq)?;
        let snapshot = manifest.snapshot(&self.manifest(workload, seq))?;
        let packs = &manifest.packs;
        let index = Index::load(self, &|name| packs.iter().any(|one| one == name))?;
        let (store, index) = (self.clone(), Mutex::new(Arc::new(index)));
        Ok(Reader { store, manifest, snapshot, index, _lock: lock })
    }

    /// A snapshot's facts, without its contents.
    pub fn snapshot(&self, workload: &str, seq: u64) -> Result<Snapshot> {
        Manifest::read(self, workload, seq)?.snapshot(&self.manifest(workload, seq))
    }
}

impl Reader {
    /// Its number.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.manifest.seq
    }

    /// All that it descends from, itself included.
    #[must_use]
    pub fn line(&self) -> Line {
        self.manifest.line().unwrap_or_default()
    }

    /// The snapshot, as listed.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The definition of the workload.
    #[must_use]
    pub fn definition(&self) -> &[u8] {
        &self.manifest.definition
    }

    /// The record.
    pub fn record(&self) -> Result<Vec<u8>> {
        let path = self.store.manifest(&self.manifest.workload, self.manifest.seq);
        let damaged = || self.of_this(Error::damaged(&path, 0, "the record is not whole"));
        let len = usize::try_from(self.manifest.record_bytes).unwrap_or(usize::MAX);
        if len > LARGEST_RECORD {
            return Err(damaged());
        }
        let mut record = vec![0; len]; // A run of zero pages is a hole.
        let mut whole = true;
        self.visit(RECORD, &mut |at, bytes| {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            match record.get_mut(at..at.saturating_add(bytes.len())) {
                Some(place) => place.copy_from_slice(bytes),
                None => whole = false,
            }
            Ok(())
        })?;
        if whole { Ok(record) } else { Err(damaged()) }
    }

    /// The streams, by name, without the record.
    pub fn streams(&self) -> Result<Vec<StreamInfo>> {
        let names = self.manifest.streams.iter().map(|stream| &stream.name);
        let info = |name: &String| {
            let last_at = self.entries(name)?.last().map_or(0, |entry| entry.at);
            Ok(StreamInfo { name: name.clone(), last_at })
        };
        names.filter(|name| *name != RECORD).map(info).collect()
    }

    /// Visits what a stream holds, ascending, contiguous chunks together.
    pub fn stream(
        &self,
        name: &str,
        visit: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> Result<()> {
        self.visit(name, visit)
    }

    /// Visits the same in no order, from several threads at once.
    pub fn scatter(
        &self,
        name: &str,
        visit: &(dyn Fn(u64, &[u8]) -> io::Result<()> + Sync),
    ) -> Result<()> {
        let entries = self.entries(name)?;
        let windows = windows(&entries);
        let next = AtomicUsize::new(0);
        let work = || {
            let mut window = Window::default();
            while let Some(entries) = windows.get(next.fetch_add(1, Ordering::Relaxed)) {
                let done = window.fill(self, entries);
                if let Err(error) =
                    done.and_then(|()| self.give(&window, &mut |at, bytes| visit(at, bytes)))
                {
                    next.store(windows.len(), Ordering::Relaxed);
                    return Err(error);
                }
            }
            Ok(())
        };
        if windows.len() < THREADS * AHEAD {
            return work();
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = (1..THREADS).map(|_| scope.spawn(work)).collect();
            let ours = work();
            let ended = |_| Error::Misuse { what: "a reading thread ended".into() };
            threads.into_iter().try_fold((), |(), thread| thread.join().map_err(ended)?).and(ours)
        })
    }

    /// Offset and length of each chunk of a stream, or part of one. No contents are read.
    pub fn extents(&self, name: &str) -> Result<Vec<(u64, u64)>> {
        let entries = self.entries(name)?;
        let mut index = self.index();
        if entries.iter().any(|entry| !index.chunks.contains_key(&entry.name)) {
            index = self.reload()?;
        }
        let extent = |entry: &Entry| {
            let location = index.chunks.get(&entry.name);
            let location = location.ok_or_else(|| self.of_this(index.missing(&entry.name)))?;
            Ok((entry.at, entry.len(location.raw).ok_or_else(|| self.too_much())?))
        };
        entries.iter().map(extent).collect()
    }

    /// A range of a stream; holes are zeros. Only what lies in it is read.
    pub fn range(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>> {
        let len = range.end.saturating_sub(range.start);
        let len = usize::try_from(len).ok().filter(|len| *len <= LARGEST_RECORD);
        let mut found =
            vec![0; len.ok_or_else(|| Error::Misuse { what: "a range is too long".into() })?];
        let near = |at: u64| at < range.end && at.saturating_add(LARGEST as u64) > range.start;
        let mut entries = self.entries(name)?;
        entries.retain(|entry| near(entry.at));
        self.pieces(&entries, range.clone(), &mut |at, bytes| {
            let from = usize::try_from(at - range.start).unwrap_or(usize::MAX);
            if let Some(room) = found.get_mut(from..from.saturating_add(bytes.len())) {
                room.copy_from_slice(bytes);
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn visit(&self, name: &str, visit: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>) -> Result<()> {
        let entries = self.entries(name)?;
        let windows = windows(&entries);
        let mut give = |window: &Window| self.give(window, visit);
        if windows.len() <= THREADS * AHEAD {
            let mut window = Window::default();
            return windows.iter().try_for_each(|entries| {
                window.fill(self, entries)?;
                give(&window)
            });
        }
        let spent = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let start = |first| {
                let (send, receive) = sync_channel(AHEAD);
                let (windows, spent) = (&windows, &spent);
                scope.spawn(move || {
                    for entries in windows.iter().skip(first).step_by(THREADS) {
                        let mut window: Window = take(spent);
                        let filled = window.fill(self, entries).map(|()| window);
                        let stop = filled.is_err();
                        if send.send(filled).is_err() || stop {
                            return;
                        }
                    }
                });
                receive
            };
            let threads: Vec<Receiver<Result<Window>>> = (0..THREADS).map(start).collect();
            for thread in threads.iter().cycle().take(windows.len()) {
                let ended = |_| Error::Misuse { what: "a reading thread ended".into() };
                let window = thread.recv().map_err(ended)??;
                give(&window)?;
                spent.lock().unwrap_or_else(PoisonError::into_inner).push(window);
            }
            Ok(())
        })
    }

    fn give(
        &self,
        window: &Window,
        visit: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> Result<()> {
        let failed = |source| Error::Io { path: self.store.dir().to_owned(), op: "use", source };
        window.pieces().try_for_each(|(at, bytes)| visit(at, bytes).map_err(failed))
    }

    pub(crate) fn index(&self) -> Arc<Index> {
        Arc::clone(&self.index.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Names of all leaves.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.manifest.streams.iter().flat_map(|stream| &stream.leaves)
    }

    /// Appends a chunk's bytes to `into`. What is not where it was, or is damaged there, may be
    /// whole elsewhere: pruning moves chunks, and later snapshots store damaged ones again.
    pub(crate) fn chunk(&self, name: &Name, room: &mut Vec<u8>, into: &mut Vec<u8>) -> Result<()> {
        let before = into.len();
        let Err(error) = self.index().read_to(name, room, into) else { return Ok(()) };
        if !error.is_damage() {
            return Err(error);
        }
        into.truncate(before);
        let all = self.reload()?;
        all.read_to(name, room, into).map_err(|error| self.spoilt(name, &all, error))
    }

    fn reload(&self) -> Result<Arc<Index>> {
        let all = Arc::new(Index::load(&self.store, &|_| true)?);
        *self.index.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&all);
        Ok(all)
    }

    pub(crate) fn spoilt(&self, name: &Name, index: &Index, error: Error) -> Error {
        if let (Error::Damaged { .. }, Some((path, _))) = (&error, index.place(name)) {
            distrust(&self.store, path);
        }
        self.of_this(error)
    }

    fn of_this(&self, error: Error) -> Error {
        if !error.is_damage() || matches!(error, Error::Spoilt { .. }) {
            return error;
        }
        let (workload, seq) = (self.manifest.workload.clone(), self.manifest.seq);
        Error::Spoilt { workload, seq, source: Box::new(error) }
    }

    /// What a stream consists of.
    pub(crate) fn entries(&self, name: &str) -> Result<Entries> {
        let stream = self.manifest.streams.iter().find(|stream| stream.name == name);
        let mut all = Vec::new();
        for leaf in stream.into_iter().flat_map(|stream| &stream.leaves) {
            all.extend(self.leaf(leaf)?.1);
        }
        Ok(all)
    }

    pub(crate) fn leaf(&self, name: &[u8]) -> Result<(Name, Entries)> {
        let path = self.store.manifest(&self.manifest.workload, self.manifest.seq);
        let damaged = |why| self.of_this(Error::damaged(&path, 0, why));
        let name = Name(name.try_into().map_err(|_| damaged("a name is not 32 bytes"))?);
        let mut bytes = Vec::new();
        self.chunk(&name, &mut Vec::new(), &mut bytes)?;
        Ok((name, leaf::decode(&bytes).ok_or_else(|| damaged("a leaf is not whole"))?))
    }

    pub(crate) fn too_much(&self) -> Error {
        let path = self.store.manifest(&self.manifest.workload, self.manifest.seq);
        self.of_this(Error::damaged(&path, 0, "a leaf claims more than a chunk holds"))
    }

    /// What of these entries lies in a range, piece by piece.
    pub(crate) fn pieces(
        &self,
        entries: &[Entry],
        range: Range<u64>,
        visit: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut window = Window::default();
        for entries in windows(entries) {
            window.fill(self, entries)?;
            window.pieces().try_for_each(|(at, bytes)| {
                let (from, to) = (range.start.max(at), range.end.min(at + bytes.len() as u64));
                let within = |offset: u64| usize::try_from(offset - at).unwrap_or(usize::MAX);
                if from >= to {
                    return Ok(());
                }
                visit(from, bytes.get(within(from)..within(to)).unwrap_or_default())
            })?;
        }
        Ok(())
    }
}

/// From now on nobody refers to what this pack holds: it is stored anew, which heals the snapshots
/// that need it. Only a mark, and worth no error: without it the pack goes on being relied on.
fn distrust(store: &Store, pack: &std::path::Path) {
    tracing::warn!(pack = %pack.display(), "the pack is damaged, and not to be relied on");
    drop(store.medium().create(&pack::distrust_path(pack)));
}

fn take<T: Default>(spent: &Mutex<Vec<T>>) -> T {
    spent.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
}
