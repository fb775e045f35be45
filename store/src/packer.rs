//! From bytes to chunks in a pack: named, compressed and written by two more threads.
//!
//! The program may be standing still meanwhile, so whoever gives bytes only copies them into a batch.
//! The queue is short, so that memory stays bounded, and spent batches are used again. Threads take a
//! batch each, and meet only to say which chunks are new and to get room in the pack: they write it
//! themselves, and have the kernel begin to write back, so that the sync at the end finds little to do.
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::chunk::{self, Codec, Name};
use crate::error::{Error, Result};
use crate::index::{Index, Names};
use crate::layout::Store;
use crate::medium::Medium;
use crate::pack::{self, Extent, HEADER, Location, PackWriter};
use crate::space;

/// How much is handed to a thread at once: the room of a batch. All rooms together stay in the cache.
pub(crate) const BATCH: usize = 512 << 10;
/// How many batches may wait.
const WAITING: usize = 4;
const THREADS: usize = 2;
/// After how many stored bytes we look whether the disk fills up.
const LOOK: u64 = 64 << 20;

/// Where in a stream a chunk belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) stream: u32,
    pub(crate) at: u64,
    pub(crate) name: Name,
}

/// Bytes on their way to chunks.
#[derive(Debug)]
struct Batch {
    /// All of the room, whatever is in it.
    room: Vec<u8>,
    used: usize,
    chunks: Vec<Piece>,
}

/// What becomes a chunk: its stream, its offset there, and where it lies in a room.
pub(crate) type Piece = (u32, u64, Range<usize>);

impl Batch {
    fn in_room(room: Vec<u8>) -> Self {
        Self { room, used: 0, chunks: Vec::new() }
    }
}

/// Takes bytes, gives entries.
#[derive(Debug)]
pub(crate) struct Packer {
    shared: Arc<Shared>,
    batch: Batch,
    pool: Option<Pool>,
    /// What was stored without the pool, or is known from elsewhere.
    pub(crate) entries: Vec<Entry>,
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

/// Where a thread compresses to, used again and again.
type Rooms = Vec<Vec<u8>>;

#[derive(Debug)]
struct Pool {
    batches: SyncSender<Batch>,
    threads: Vec<JoinHandle<Vec<Entry>>>,
}

impl Packer {
    /// What is in `index` is not stored again.
    pub(crate) fn new(store: &Store, index: Index) -> Self {
        let state = State { new: Names::default(), pack: None, looked_at: 0, failed: None };
        let (state, spent) = (Mutex::new(state), Mutex::default());
        let shared = Arc::new(Shared { store: store.clone(), index, state, spent });
        Self { shared, batch: Batch::in_room(Vec::new()), pool: None, entries: Vec::new() }
    }

    /// Whether a chunk is stored already, or about to be.
    pub(crate) fn knows(&self, name: &Name) -> bool {
        self.shared.index.chunks.contains_key(name) || self.shared.state().new.contains(name)
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
        if self.batch.used + bytes.len() > self.batch.room.len() {
            let next = Batch::in_room(self.room());
            let full = std::mem::replace(&mut self.batch, next);
            self.hand_over(full)?;
        }
        let place = self.batch.used..self.batch.used + bytes.len();
        let too_long = || Error::Misuse { what: "a chunk is too long".into() };
        let room = self.batch.room.get_mut(place.clone()).ok_or_else(too_long)?;
        room.copy_from_slice(bytes);
        self.batch.used = place.end;
        self.batch.chunks.push((stream, at, place));
        Ok(())
    }

    /// Adds what becomes chunks and is in a room of its own already; gives back another room.
    pub(crate) fn push_room(&mut self, room: Vec<u8>, chunks: Vec<Piece>) -> Result<Vec<u8>> {
        if chunks.is_empty() {
            return Ok(room);
        }
        self.hand_over(Batch { room, used: 0, chunks })?;
        Ok(self.room())
    }

    /// Room for a batch.
    pub(crate) fn room(&self) -> Vec<u8> {
        self.shared.spent().pop().unwrap_or_else(|| vec![0; BATCH])
    }

    fn hand_over(&mut self, batch: Batch) -> Result<()> {
        if batch.chunks.is_empty() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let pool = self.pool.get_or_insert_with(|| Pool::start(&shared));
        if pool.batches.send(batch).is_err() {
            return Err(self.failure());
        }
        match self.shared.state().failed.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn failure(&self) -> Error {
        let failed = self.shared.state().failed.take();
        failed.unwrap_or_else(|| Error::Misuse { what: "a writing thread ended".into() })
    }

    /// Waits until all that was pushed is written.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let rest = std::mem::replace(&mut self.batch, Batch::in_room(Vec::new()));
        self.entries.extend(self.shared.take(&rest, &mut Vec::new())?);
        if let Some(Pool { batches, threads }) = self.pool.take() {
            drop(batches);
            for thread in threads {
                self.entries.extend(thread.join().map_err(|_| self.failure())?);
            }
        }
        match self.shared.state().failed.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Stores chunks at once, and names them.
    pub(crate) fn store(&self, chunks: &[Vec<u8>]) -> Result<Vec<Name>> {
        let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        self.shared.put(&chunks, &mut Rooms::new())
    }

    /// Makes the pack durable and puts it in place; how many bytes it has, and its name, which is
    /// not durable yet.
    pub(crate) fn seal(&self) -> Result<(u64, Option<String>)> {
        let Some(pack) = self.shared.state().pack.take() else { return Ok((0, None)) };
        let bytes = pack.len();
        let path = pack.finish()?;
        Ok((bytes, path.and_then(|path| pack::name_of(&path))))
    }
}

/// Given up: only when no thread is at it any more is the pack let go, and its draft removed.
impl Drop for Packer {
    fn drop(&mut self) {
        if let Some(Pool { batches, threads }) = self.pool.take() {
            drop(batches);
            for thread in threads {
                drop(thread.join());
            }
        }
    }
}

impl Pool {
    fn start(shared: &Arc<Shared>) -> Self {
        let (batches, waiting) = sync_channel::<Batch>(WAITING);
        let waiting = Arc::new(Mutex::new(waiting));
        let start = |_| {
            let (shared, waiting) = (Arc::clone(shared), Arc::clone(&waiting));
            std::thread::spawn(move || work(&shared, &waiting))
        };
        Self { batches, threads: (0..THREADS).map(start).collect() }
    }
}

/// One thread: takes batches until there are no more. After a failure they are taken and dropped, so
/// that nobody waits.
fn work(shared: &Shared, waiting: &Mutex<Receiver<Batch>>) -> Vec<Entry> {
    let (mut entries, mut rooms) = (Vec::new(), Vec::new());
    loop {
        let batch = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = batch else { return entries };
        match shared.take(&batch, &mut rooms) {
            Ok(more) => entries.extend(more),
            Err(error) => drop(shared.state().failed.get_or_insert(error)),
        }
        if batch.room.len() == BATCH {
            shared.spent().push(batch.room);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spent(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, batch: &Batch, rooms: &mut Rooms) -> Result<Vec<Entry>> {
        let bytes = |(_, _, place): &Piece| batch.room.get(place.clone()).unwrap_or_default();
        let chunks: Vec<&[u8]> = batch.chunks.iter().map(bytes).collect();
        let names = self.put(&chunks, rooms)?;
        let placed = batch.chunks.iter().zip(names);
        Ok(placed.map(|((stream, at, _), name)| Entry { stream: *stream, at: *at, name }).collect())
    }

    /// Stores those chunks that are not stored yet, and names all.
    fn put(&self, chunks: &[&[u8]], rooms: &mut Rooms) -> Result<Vec<Name>> {
        let names: Vec<Name> = chunks.iter().map(|chunk| Name::of(chunk)).collect();
        let new: Vec<bool> = {
            let mut state = self.state();
            // Who says so first stores it; if it fails, so does the snapshot.
            let known = &self.index.chunks;
            names.iter().map(|name| !known.contains_key(name) && state.new.insert(*name)).collect()
        };
        let new = chunks.iter().zip(&names).zip(new).filter(|(_, new)| *new);
        let mut packed = Vec::new();
        for ((bytes, name), _) in new {
            packed.push(Packed::of(*name, bytes, rooms.pop().unwrap_or_default())?);
        }
        if !packed.is_empty() {
            self.write(&packed)?;
        }
        rooms.extend(packed.into_iter().map(|one| one.smaller));
        Ok(names)
    }

    fn write(&self, packed: &[Packed<'_>]) -> Result<()> {
        let Extent { file, path, at } = self.room(packed)?;
        let parts: Vec<&[u8]> =
            packed.iter().flat_map(|one| [one.header.as_slice(), one.stored()]).collect();
        self.store.medium().write_at(&file, &path, &parts, at)?;
        let len: usize = parts.iter().map(|part| part.len()).sum();
        Medium::hurry(&file, at, len as u64);
        Ok(())
    }

    fn room(&self, packed: &[Packed<'_>]) -> Result<Extent> {
        let mut state = self.state();
        if state.pack.is_none() {
            state.pack = Some(PackWriter::create(&self.store)?);
        }
        let chunks = packed.iter().map(|one| (one.name, one.location));
        let pack = state.pack.as_mut().ok_or_else(|| Error::Misuse { what: "no pack".into() })?;
        let (extent, len) = (pack.extend(chunks), pack.len());
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

/// A chunk ready to be written.
#[derive(Debug)]
struct Packed<'a> {
    name: Name,
    location: Location,
    header: [u8; HEADER],
    bytes: &'a [u8],
    smaller: Vec<u8>,
}

impl<'a> Packed<'a> {
    fn of(name: Name, bytes: &'a [u8], mut smaller: Vec<u8>) -> Result<Self> {
        let packed = chunk::pack(bytes, &mut smaller).and_then(|len| smaller.get(..len));
        let codec = if packed.is_some() { Codec::Lz4 } else { Codec::Raw };
        let stored = packed.unwrap_or(bytes);
        let too_long = |_| Error::Misuse { what: "a chunk is too long".into() };
        let raw = u32::try_from(bytes.len()).map_err(too_long)?;
        let header = pack::header(&name, codec, raw, stored)?;
        let stored = u32::try_from(stored.len()).map_err(too_long)?;
        let location = Location { pack: 0, at: 0, stored, raw, codec };
        Ok(Self { name, location, header, bytes, smaller })
    }

    fn stored(&self) -> &[u8] {
        let smaller = self.smaller.get(..self.location.stored as usize).unwrap_or_default();
        if self.location.codec == Codec::Raw { self.bytes } else { smaller }
    }
}
