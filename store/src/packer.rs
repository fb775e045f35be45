//! From bytes to chunks in a pack: read, named, compressed and written by threads of our own.
//!
//! What is large is not given but announced: the threads read it themselves, from wherever it is
//! ([`Origin`]), a little at a time. What is given is copied into a batch. The queue is short, so that
//! memory stays bounded. Threads meet only to say which chunks are new and to get room in the pack.
mod outlet;
mod pool;

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::outlet::Outlet;
use self::pool::Pool;
pub(crate) use self::pool::full_runs;
use crate::chunk::{LARGEST, Name};
use crate::error::{Error, Result};
use crate::index::{Index, Names};
use crate::layout::Store;
use crate::leaf::Entry;
use crate::pack::{self, Extent, Location, PackWriter};
use crate::space;

/// How much is handed to a thread at once: what it does with it stays in its cache.
pub(crate) const BATCH: usize = 256 << 10;
/// After how many stored bytes we look whether the disk fills up.
const LOOK: u64 = 64 << 20;

/// A run of a stream: its offset, and its length.
pub type Run = (u64, usize);
/// Reads runs into a room, one behind the other, all of them or none. Called by any thread, until the
/// writer is settled.
pub type Origin = Arc<dyn Fn(&[Run], &mut [u8]) -> io::Result<()> + Send + Sync>;

/// What becomes a chunk: its stream, its offset there, and where it lies in a room.
type Piece = (u32, u64, Range<usize>);

/// Work for a thread.
enum Work {
    /// Bytes in a room of their own.
    Here { room: Vec<u8>, pieces: Vec<Piece> },
    /// Runs of a stream that are yet to be read.
    There { stream: u32, runs: Vec<Run>, origin: Origin },
}

/// Takes bytes, gives entries.
pub(crate) struct Packer {
    shared: Arc<Shared>,
    /// Bytes that were given, and how many.
    room: Vec<u8>,
    used: usize,
    pieces: Vec<Piece>,
    /// What was announced.
    announced: Option<Announced>,
    outlet: Outlet,
    pool: Option<Pool>,
    /// What was stored without the pool, or is known from elsewhere; of which stream.
    pub(crate) entries: Vec<(u32, Entry)>,
}

/// Runs of one stream that make up the next piece of work.
struct Announced {
    stream: u32,
    runs: Vec<Run>,
    bytes: usize,
    origin: Origin,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    /// What is stored already.
    index: Index,
    state: Mutex<State>,
    /// Rooms to be used again.
    spent: Mutex<Vec<Vec<u8>>>,
}

#[derive(Debug)]
struct State {
    /// What is stored in this pack, or about to be.
    new: Names,
    pack: Option<PackWriter>,
    looked_at: u64,
    failed: Option<Error>,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl Packer {
    /// What is in `index` is not stored again.
    pub(crate) fn new(store: &Store, index: Index) -> Self {
        let state = State { new: Names::default(), pack: None, looked_at: 0, failed: None };
        let (state, spent) = (Mutex::new(state), Mutex::default());
        let shared = Arc::new(Shared { store: store.clone(), index, state, spent });
        Self {
            shared,
            room: Vec::new(),
            used: 0,
            pieces: Vec::new(),
            announced: None,
            outlet: Outlet::default(),
            pool: None,
            entries: Vec::new(),
        }
    }

    /// How many bytes a chunk has, if it was stored before, and may be relied on.
    pub(crate) fn raw(&self, name: &Name) -> Option<u32> {
        Some(self.shared.index.chunks.get(name)?.raw)
    }

    /// Likewise, of an entry; `None` too if it claims more than its chunk has.
    pub(crate) fn len(&self, entry: &Entry) -> Option<u64> {
        entry.len(self.raw(&entry.name)?)
    }

    /// The names of the packs that these chunks lie in, but for the new one.
    pub(crate) fn packs_of<'a>(&self, chunks: impl Iterator<Item = &'a Name>) -> Vec<String> {
        let index = &self.shared.index;
        let numbers: BTreeSet<u32> =
            chunks.filter_map(|name| Some(index.chunks.get(name)?.pack)).collect();
        let path = |number: u32| index.packs.get(usize::try_from(number).ok()?);
        numbers.into_iter().filter_map(path).filter_map(|path| pack::name_of(path)).collect()
    }

    /// Adds what becomes one chunk.
    pub(crate) fn push(&mut self, stream: u32, at: u64, bytes: &[u8]) -> Result<()> {
        if self.used + bytes.len() > self.room.len() {
            self.give()?;
            self.room = self.shared.room();
        }
        let place = self.used..self.used + bytes.len();
        let too_long = || Error::Misuse { what: "a chunk is too long".into() };
        self.room.get_mut(place.clone()).ok_or_else(too_long)?.copy_from_slice(bytes);
        self.used = place.end;
        self.pieces.push((stream, at, place));
        Ok(())
    }

    /// Adds a run of a stream that lies in one block: it is read when a thread has time. Runs of a
    /// stream ascend.
    pub(crate) fn announce(&mut self, stream: u32, run: Run, origin: &Origin) -> Result<()> {
        let block = |at: u64| at / LARGEST as u64;
        let fits = |next: &Announced| {
            let last = next.runs.last().map(|(at, len)| block(*at + *len as u64 - 1));
            let same_block = last == Some(block(run.0));
            let same = next.stream == stream && Arc::ptr_eq(&next.origin, origin);
            same && (same_block || next.bytes + LARGEST <= BATCH)
        };
        if !self.announced.as_ref().is_some_and(fits) {
            self.give_announced()?;
        }
        let new = || Announced { stream, runs: Vec::new(), bytes: 0, origin: Arc::clone(origin) };
        let next = self.announced.get_or_insert_with(new);
        match next.runs.last_mut() {
            Some((at, len)) if *at + *len as u64 == run.0 => *len += run.1,
            _ => next.runs.push(run),
        }
        next.bytes += run.1;
        Ok(())
    }

    fn give_announced(&mut self) -> Result<()> {
        let Some(Announced { stream, runs, origin, .. }) = self.announced.take() else {
            return Ok(());
        };
        self.hand_over(Work::There { stream, runs, origin })
    }

    fn give(&mut self) -> Result<()> {
        let (room, pieces) = (std::mem::take(&mut self.room), std::mem::take(&mut self.pieces));
        self.used = 0;
        if pieces.is_empty() { Ok(()) } else { self.hand_over(Work::Here { room, pieces }) }
    }

    fn hand_over(&mut self, work: Work) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        if !self.pool.get_or_insert_with(|| Pool::start(&shared)).give(work) {
            return Err(self.failure());
        }
        self.shared.failed()
    }

    fn failure(&self) -> Error {
        let ended = || Error::Misuse { what: "a writing thread ended".into() };
        self.shared.failed().err().unwrap_or_else(ended)
    }

    /// Waits until all that was pushed is written, and all that was announced is read.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.give_announced()?;
        // Little is done here: threads are only for what is much.
        let (room, pieces) = (std::mem::take(&mut self.room), std::mem::take(&mut self.pieces));
        self.used = 0;
        let bytes = |(_, _, place): &Piece| room.get(place.clone()).unwrap_or_default();
        let chunks: Vec<&[u8]> = pieces.iter().map(bytes).collect();
        let names = self.shared.put(&chunks, &mut self.outlet)?;
        self.entries.extend(entries(&pieces, names));
        if let Some(pool) = self.pool.take() {
            let entries = pool.finish().ok_or_else(|| self.failure())?;
            self.entries.extend(entries);
        }
        self.shared.failed()
    }

    /// Stores chunks, and names them.
    pub(crate) fn store(&mut self, chunks: &[Vec<u8>]) -> Result<Vec<Name>> {
        let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        self.shared.put(&chunks, &mut self.outlet)
    }

    /// Makes the pack durable and puts it in place; how many bytes it has, and its name, which is
    /// not durable yet.
    pub(crate) fn seal(&mut self) -> Result<(u64, Option<String>)> {
        self.outlet.finish(&self.shared)?;
        let Some(pack) = self.shared.state().pack.take() else { return Ok((0, None)) };
        let bytes = pack.len();
        let path = pack.finish()?;
        Ok((bytes, path.and_then(|path| pack::name_of(&path))))
    }
}

/// Given up: only when no thread is at it any more is the pack let go, and its draft removed.
impl Drop for Packer {
    fn drop(&mut self) {
        drop(self.pool.take().map(Pool::finish));
    }
}

/// Pieces that are chunks now.
fn entries(pieces: &[Piece], names: Vec<Name>) -> impl Iterator<Item = (u32, Entry)> {
    let entry = |(stream, at, _): &Piece, name| (*stream, Entry { at: *at, name, pages: None });
    pieces.iter().zip(names).map(move |(piece, name)| entry(piece, name))
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for a batch.
    fn room(&self) -> Vec<u8> {
        let spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spent.unwrap_or_else(|| vec![0; BATCH])
    }

    fn spent(&self, room: Vec<u8>) {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner).push(room);
    }

    /// Keeps the first failure, until somebody asks.
    fn note(&self, done: Result<()>) {
        if let Err(error) = done {
            self.state().failed.get_or_insert(error);
        }
    }

    fn failed(&self) -> Result<()> {
        self.state().failed.take().map_or(Ok(()), Err)
    }

    /// Stores those chunks that are not stored yet, and names all.
    fn put(&self, chunks: &[&[u8]], outlet: &mut Outlet) -> Result<Vec<Name>> {
        let names: Vec<Name> = chunks.iter().map(|chunk| Name::of(chunk)).collect();
        let new: Vec<bool> = {
            let mut state = self.state();
            // Who says so first stores it; if it fails, so does the snapshot.
            let known = &self.index.chunks;
            names.iter().map(|name| !known.contains_key(name) && state.new.insert(*name)).collect()
        };
        let new = chunks.iter().zip(&names).zip(new).filter(|(_, new)| *new);
        new.map(|(one, _)| one).try_for_each(|(bytes, name)| outlet.add(*name, bytes, self))?;
        Ok(names)
    }

    /// Gives out room in the pack; see [`PackWriter::extend`].
    fn extent(
        &self,
        chunks: impl Iterator<Item = (Name, Location)>,
        len: u64,
        much: bool,
    ) -> Result<Extent> {
        let mut state = self.state();
        if state.pack.is_none() {
            state.pack = Some(PackWriter::create(&self.store)?);
        }
        let pack = state.pack.as_mut().ok_or_else(|| Error::Misuse { what: "no pack".into() })?;
        let (extent, len) = (pack.extend(chunks, len, much), pack.len());
        let look = len >= state.looked_at + LOOK;
        if look {
            state.looked_at = len;
        }
        drop(state);
        if look {
            space::check_reserve(self.store.dir())?;
        }
        Ok(extent)
    }
}
