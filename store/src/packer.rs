//! From bytes to chunks in a pack: read, named, compressed and written by threads of our own.
//!
//! What is large is not given but announced: the threads read it themselves, from wherever it is
//! ([`Origin`]), a little at a time. What is given is copied into a batch. The queue is short, so that
//! memory stays bounded. Threads meet only to say which chunks are new and to get room in the pack.
mod allowance;
mod outlet;
mod pool;

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::allowance::Allowance;
pub use self::allowance::Compression;
use self::outlet::Outlet;
use self::pool::Pool;
pub(crate) use self::pool::full_runs;
use crate::chunk::{LARGEST, Name, PAGE};
use crate::error::{Error, Result};
use crate::index::{Index, Names};
use crate::layout::Store;
use crate::leaf::{BLOCK, Entry, LEAF, Pages};
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

/// What becomes a chunk: where it lies in a room, and which runs of a stream it is, one behind the other.
/// None is in two blocks, and but for the last they are whole pages.
struct Piece {
    stream: u32,
    place: Range<usize>,
    runs: Vec<Run>,
}

/// Work for a thread.
enum Work {
    /// Bytes in a room of their own.
    Here { room: Vec<u8>, pieces: Vec<Piece> },
    /// What is yet to be read.
    There(Announced),
}

/// What has become of pieces, of any stream.
type Entries = Vec<(u32, Entry)>;

/// Takes bytes, gives entries.
pub(crate) struct Packer {
    shared: Arc<Shared>,
    /// Bytes that were given, and how many.
    room: Vec<u8>,
    used: usize,
    pieces: Vec<Piece>,
    /// What was announced: blocks, and scattered pages.
    announced: [Option<Announced>; 2],
    outlet: Outlet,
    pool: Option<Pool>,
    /// What was stored without the pool, or is known from elsewhere; of which stream.
    pub(crate) entries: Entries,
}

/// How runs become chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// By blocks, so that what is the same elsewhere is stored once.
    Blocks,
    /// As many pages of a leaf together as a chunk holds. Of a few pages, here and there, each has
    /// neighbours that help to compress it, and one name does for all.
    Scattered,
}

/// Runs of one stream that make up a piece of work.
struct Announced {
    stream: u32,
    cut: Cut,
    runs: Vec<Run>,
    bytes: usize,
    origin: Origin,
}

impl Announced {
    /// Whether one more run would be better begun with.
    fn is_full_for(&self, run: Run) -> bool {
        let last = self.runs.last().map_or(run.0, |(at, len)| at + *len as u64 - 1);
        match self.cut {
            Cut::Blocks => last / BLOCK != run.0 / BLOCK && self.bytes + LARGEST > BATCH,
            Cut::Scattered if last / LEAF == run.0 / LEAF => self.bytes + run.1 > BATCH,
            Cut::Scattered => self.bytes > BATCH / 2,
        }
    }

    fn add(&mut self, run: Run) {
        match self.runs.last_mut() {
            Some((at, len)) if *at + *len as u64 == run.0 => *len += run.1,
            _ => self.runs.push(run),
        }
        self.bytes += run.1;
    }
}

#[derive(Debug)]
struct Shared {
    store: Store,
    /// What is stored already.
    index: Index,
    state: Mutex<State>,
    allowance: Allowance,
    /// Rooms to be used again.
    spent: Mutex<Vec<Vec<u8>>>,
    /// Held while something is written through the page cache: the kernel lets one at a time write to a
    /// file, and has the others spin.
    turn: Mutex<()>,
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
    pub(crate) fn new(store: &Store, index: Index, compression: Compression) -> Self {
        let state = State { new: Names::default(), pack: None, looked_at: 0, failed: None };
        let (state, spent, turn) = (Mutex::new(state), Mutex::default(), Mutex::default());
        let allowance = Allowance::new(compression);
        let shared =
            Arc::new(Shared { store: store.clone(), index, state, allowance, spent, turn });
        Self {
            shared,
            room: Vec::new(),
            used: 0,
            pieces: Vec::new(),
            announced: [None, None],
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
        let runs = vec![(at, bytes.len())];
        self.pieces.push(Piece { stream, place, runs });
        Ok(())
    }

    /// Adds a run of a stream that lies in one block: it is read when a thread has time. Runs of a
    /// stream that are cut alike ascend.
    pub(crate) fn announce(
        &mut self,
        (stream, cut): (u32, Cut),
        run: Run,
        origin: &Origin,
    ) -> Result<()> {
        let fits = |next: &mut Announced| {
            let same = next.stream == stream && Arc::ptr_eq(&next.origin, origin);
            same && !next.is_full_for(run)
        };
        let full = self.waiting(cut).take_if(|next| !fits(next));
        let (runs, bytes) = (Vec::new(), 0);
        let new = || Announced { stream, cut, runs, bytes, origin: Arc::clone(origin) };
        self.waiting(cut).get_or_insert_with(new).add(run);
        full.map_or(Ok(()), |full| self.hand_over(Work::There(full)))
    }

    fn waiting(&mut self, cut: Cut) -> &mut Option<Announced> {
        let [blocks, scattered] = &mut self.announced;
        if cut == Cut::Blocks { blocks } else { scattered }
    }

    fn give_announced(&mut self) -> Result<()> {
        let all = std::mem::take(&mut self.announced).into_iter().flatten();
        all.map(Work::There).try_for_each(|work| self.hand_over(work))
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
        let entries = self.shared.keep(&room, &pieces, &mut self.outlet)?;
        self.entries.extend(entries);
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

impl Piece {
    /// Whether both can be one chunk.
    fn goes_on_with(&self, next: &Self) -> bool {
        let leaf = |piece: &Self| piece.runs.first().map(|(at, _)| at / LEAF);
        self.place.end == next.place.start
            && leaf(self) == leaf(next)
            && self.place.len().is_multiple_of(PAGE)
            && self.place.len() + next.place.len() <= LARGEST
    }

    /// What of a stream is in it, now that it is a chunk.
    fn entries(&self, name: Name) -> impl Iterator<Item = (u32, Entry)> {
        let mut next = 0;
        self.runs.iter().map(move |(at, len)| {
            // A chunk has sixteen pages.
            let count = u8::try_from(len.div_ceil(PAGE)).unwrap_or_default();
            let first = next;
            next += count;
            let pages = (self.runs.len() > 1).then_some(Pages { first, count });
            (self.stream, Entry { at: *at, name, pages })
        })
    }
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

    /// Stores what lies in a room, and says what that is.
    fn keep(&self, room: &[u8], pieces: &[Piece], outlet: &mut Outlet) -> Result<Entries> {
        let bytes = |piece: &Piece| room.get(piece.place.clone()).unwrap_or_default();
        let chunks: Vec<&[u8]> = pieces.iter().map(bytes).collect();
        let names = self.put(&chunks, outlet)?;
        Ok(pieces.iter().zip(names).flat_map(|(piece, name)| piece.entries(name)).collect())
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
