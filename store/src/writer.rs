//! Writing a snapshot. Until it is committed there is no trace of it that anybody would read.
//!
//! Bytes are cut into blocks of sixteen pages, blocks into runs that are not zero, and each run
//! becomes a chunk. Naming, compressing and appending happen on two more threads, for the program
//! may be standing still meanwhile; the queue between is short, so that memory stays bounded.
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use nix::sys::statvfs::statvfs;
use prost::Message;

use crate::api::NewSnapshot;
use crate::chunk::{self, LARGEST, Name, PAGE};
use crate::error::{Error, Result, io_error};
use crate::facts::{Meta, Snapshot};
use crate::layout::{self, Lock, Store, VERSION};
use crate::line::Line;
use crate::manifest::{Facts, Leaf, Manifest, Stream};
use crate::pack::{Index, PackWriter};
use crate::reader::Reader;

/// Bytes that one leaf of a stream's index covers.
const LEAF: u64 = 2 << 20;
/// How much is handed to a thread at once.
const BATCH: usize = 2 << 20;
/// How many batches may wait.
const WAITING: usize = 4;
const THREADS: usize = 2;
/// The stream that holds the record.
pub(crate) const RECORD: &str = "record";

/// A snapshot in the making.
#[derive(Debug)]
pub struct Writer {
    store: Store,
    workload: String,
    seq: u64,
    parent: Option<Reader>,
    line: Line,
    definition: Vec<u8>,
    streams: BTreeMap<String, Open>,
    next_id: u32,
    batch: Vec<Run>,
    batch_bytes: usize,
    shared: Arc<Mutex<Appender>>,
    pool: Option<Pool>,
    /// What was appended without the pool, or is as it was in the parent.
    entries: Vec<Entry>,
    /// After the others: pruning waits until the last moment.
    _locks: (Lock, Lock),
}

/// A snapshot all of whose bytes are durable; only the commit is missing.
#[derive(Debug)]
pub struct Sealed {
    writer: Writer,
    streams: Vec<Stream>,
    stored_bytes: u64,
}

impl Sealed {
    /// Makes the snapshot: the manifest, whose rename is the commit.
    pub fn commit(self, meta: Meta) -> Result<Snapshot> {
        let Self { mut writer, streams, stored_bytes } = self;
        let manifest = Manifest {
            version: VERSION,
            workload: writer.workload.clone(),
            seq: writer.seq,
            parent: writer.parent.as_ref().map(Reader::seq),
            line: writer.line.spans().flat_map(|(first, last)| [first, last]).collect(),
            facts: Facts::of(meta),
            stored_bytes,
            definition: std::mem::take(&mut writer.definition),
            streams,
        };
        let next = writer.store.folder(&writer.workload).join("next");
        layout::write_whole(&next, format!("{}\n", writer.seq + 1).as_bytes())?;
        manifest.commit(&writer.store)?;
        manifest.snapshot(&writer.store.manifest(&writer.workload, writer.seq))
    }
}

/// A stream being written.
#[derive(Debug)]
struct Open {
    /// Of this writing: [`Writer::restart`] gives another.
    id: u32,
    /// The block that is being filled.
    at: u64,
    block: Vec<u8>,
}

/// Bytes on their way to a chunk.
#[derive(Debug)]
struct Run {
    stream: u32,
    at: u64,
    bytes: Vec<u8>,
}

/// Where in a stream a chunk belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    stream: u32,
    at: u64,
    name: Name,
}

/// What all threads share.
#[derive(Debug)]
struct Appender {
    store: Store,
    index: Index,
    /// Names that are in the new pack.
    new: std::collections::HashSet<Name>,
    pack: Option<PackWriter>,
    failed: Option<Error>,
}

#[derive(Debug)]
struct Pool {
    batches: SyncSender<Vec<Run>>,
    threads: Vec<JoinHandle<Vec<Entry>>>,
}

impl Store {
    /// Begins a snapshot of a workload, which goes on from `parent` if there is one.
    pub fn begin(&self, new: NewSnapshot) -> Result<Writer> {
        let NewSnapshot { workload, parent } = new;
        let workload = workload.as_str();
        let locks = (self.own_workload(workload)?, self.share()?);
        self.check_reserve()?;
        let seq = self.next_number(workload)?;
        let parent = parent.map(|parent| self.read(workload, parent)).transpose()?;
        let line = parent.as_ref().map(Reader::line).unwrap_or_default().then(seq);
        let appender = Appender {
            store: self.clone(),
            index: Index::load(self)?,
            new: std::collections::HashSet::new(),
            pack: None,
            failed: None,
        };
        Ok(Writer {
            store: self.clone(),
            workload: workload.to_owned(),
            seq,
            parent,
            line,
            definition: Vec::new(),
            streams: BTreeMap::new(),
            next_id: 0,
            batch: Vec::new(),
            batch_bytes: 0,
            shared: Arc::new(Mutex::new(appender)),
            pool: None,
            entries: Vec::new(),
            _locks: locks,
        })
    }

    /// A number is never used twice, even if its snapshot was forgotten.
    fn next_number(&self, workload: &str) -> Result<u64> {
        let text = std::fs::read_to_string(self.folder(workload).join("next"));
        let told = text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1);
        let newest = self.numbers(workload)?.last().copied().unwrap_or(0);
        Ok(told.max(newest + 1))
    }

    /// Snapshots never fill the disk: 5 %, at most 1 GiB, stays free.
    fn check_reserve(&self) -> Result<()> {
        let path = self.dir();
        let fs = statvfs(path).map_err(|errno| io_error("statvfs", path)(errno.into()))?;
        let free = fs.blocks_available() * fs.fragment_size();
        let reserve = (fs.blocks() * fs.fragment_size() / 20).min(1 << 30);
        if free < reserve {
            return Err(Error::Reserve { path: path.to_owned(), free, reserve });
        }
        Ok(())
    }
}

impl Writer {
    /// The number it will have.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Keeps the definition of the workload.
    pub fn definition(&mut self, bytes: &[u8]) -> Result<()> {
        self.definition = bytes.to_vec();
        Ok(())
    }

    /// Keeps the record.
    pub fn record(&mut self, bytes: &[u8]) -> Result<()> {
        self.restart(RECORD)?;
        self.stream(RECORD, 0, bytes)
    }

    /// Forgets what was written of a stream.
    pub fn restart(&mut self, name: &str) -> Result<()> {
        self.streams.remove(name);
        Ok(())
    }

    /// Appends bytes to a stream. What is never written is a hole.
    pub fn stream(&mut self, name: &str, mut at: u64, mut bytes: &[u8]) -> Result<()> {
        let id = self.open(name)?;
        while !bytes.is_empty() {
            let offset = usize::try_from(at % LARGEST as u64).unwrap_or_default();
            let block_at = at - offset as u64;
            self.turn_to(name, block_at)?;
            let Some(open) = self.streams.get_mut(name) else { break };
            let take = bytes.len().min(LARGEST - offset);
            let (now, later) = bytes.split_at(take);
            open.block.resize(open.block.len().max(offset), 0);
            let kept = open.block.len().min(offset + take);
            let (old, new) = now.split_at(kept - offset);
            open.block.get_mut(offset..kept).unwrap_or_default().copy_from_slice(old);
            open.block.extend_from_slice(new);
            (at, bytes) = (at + take as u64, later);
        }
        debug_assert!(self.streams.get(name).is_none_or(|open| open.id == id));
        Ok(())
    }

    /// Says that a range of a stream is as it was in the parent.
    pub fn unchanged(&mut self, name: &str, range: Range<u64>) -> Result<()> {
        let stream = self.open(name)?;
        let missing = || Error::Misuse { what: format!("{name} has no parent") };
        let parent = self.parent.as_ref().ok_or_else(missing)?;
        let before = parent.entries(name)?.into_iter().filter(|(at, _)| range.contains(at));
        self.entries.extend(before.map(|(at, name)| Entry { stream, at, name }));
        Ok(())
    }

    fn open(&mut self, name: &str) -> Result<u32> {
        if let Some(open) = self.streams.get(name) {
            return Ok(open.id);
        }
        let id = self.next_id;
        let too_many = || Error::Misuse { what: "there are too many streams".into() };
        self.next_id = id.checked_add(1).ok_or_else(too_many)?;
        let open = Open { id, at: 0, block: Vec::new() };
        self.streams.insert(name.to_owned(), open);
        Ok(id)
    }

    /// Moves on to another block of a stream.
    fn turn_to(&mut self, name: &str, block_at: u64) -> Result<()> {
        let Some(open) = self.streams.get_mut(name) else { return Ok(()) };
        if open.at == block_at {
            return Ok(());
        }
        if block_at < open.at {
            return Err(Error::Misuse { what: format!("offsets of {name} do not ascend") });
        }
        let block = std::mem::take(&mut open.block);
        let (id, at) = (open.id, open.at);
        open.at = block_at;
        self.cut(id, at, &block)
    }

    /// Cuts a block into runs without zero pages.
    fn cut(&mut self, stream: u32, at: u64, block: &[u8]) -> Result<()> {
        let mut start = None;
        let pages = block.len().div_ceil(PAGE);
        for page in 0..=pages {
            let bytes = block.get(page * PAGE..block.len().min((page + 1) * PAGE));
            let full = page < pages && bytes.is_some_and(|bytes| !chunk::is_zero(bytes));
            match (start, full) {
                (None, true) => start = Some(page),
                (Some(first), false) => {
                    let run = block.get(first * PAGE..block.len().min(page * PAGE));
                    let at = at + (first * PAGE) as u64;
                    self.push(Run { stream, at, bytes: run.unwrap_or_default().to_vec() })?;
                    start = None;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn push(&mut self, run: Run) -> Result<()> {
        self.batch_bytes += run.bytes.len();
        self.batch.push(run);
        if self.batch_bytes < BATCH {
            return Ok(());
        }
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        let shared = Arc::clone(&self.shared);
        let pool = self.pool.get_or_insert_with(|| Pool::start(&shared));
        if pool.batches.send(batch).is_err() {
            return Err(self.failure());
        }
        match lock(&self.shared).failed.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn failure(&self) -> Error {
        let failed = lock(&self.shared).failed.take();
        failed.unwrap_or_else(|| Error::Misuse { what: "a writing thread ended".into() })
    }

    /// Makes every byte durable: the slow part of a commit.
    pub fn seal(mut self) -> Result<Sealed> {
        self.flush()?;
        let streams = self.indexes()?;
        let pack = lock(&self.shared).pack.take();
        let stored_bytes = pack.as_ref().map_or(0, PackWriter::len);
        if let Some(pack) = pack {
            pack.finish()?;
        }
        Ok(Sealed { writer: self, streams, stored_bytes })
    }

    /// Seals and commits.
    pub fn commit(self, meta: Meta) -> Result<Snapshot> {
        self.seal()?.commit(meta)
    }

    /// Brings everything that was written to chunks.
    fn flush(&mut self) -> Result<()> {
        let names: Vec<_> = self.streams.keys().cloned().collect();
        for name in names {
            self.turn_to(&name, u64::MAX - u64::MAX % LARGEST as u64)?;
        }
        let rest = std::mem::take(&mut self.batch);
        self.entries.extend(append_all(&self.shared, rest)?);
        if let Some(Pool { batches, threads }) = self.pool.take() {
            drop(batches);
            for thread in threads {
                self.entries.extend(thread.join().map_err(|_| self.failure())?);
            }
        }
        match lock(&self.shared).failed.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Writes the leaves of all streams, and says where they are.
    fn indexes(&mut self) -> Result<Vec<Stream>> {
        let mut by_stream: BTreeMap<u32, Vec<(u64, Name)>> = BTreeMap::new();
        for entry in std::mem::take(&mut self.entries) {
            by_stream.entry(entry.stream).or_default().push((entry.at, entry.name));
        }
        let mut streams = Vec::new();
        for (name, open) in &self.streams {
            let mut entries = by_stream.remove(&open.id).unwrap_or_default();
            entries.sort_unstable();
            let mut leaves = Vec::new();
            for part in entries.chunk_by(|(a, _), (b, _)| a / LEAF == b / LEAF) {
                let leaf = Leaf {
                    at: part.iter().map(|(at, _)| *at).collect(),
                    names: part.iter().flat_map(|(_, name)| name.0).collect(),
                };
                leaves.push(append(&self.shared, &leaf.encode_to_vec())?.0.to_vec());
            }
            streams.push(Stream { name: name.clone(), leaves });
        }
        Ok(streams)
    }
}

impl Pool {
    fn start(shared: &Arc<Mutex<Appender>>) -> Self {
        let (batches, waiting) = sync_channel::<Vec<Run>>(WAITING);
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
fn work(shared: &Mutex<Appender>, waiting: &Mutex<Receiver<Vec<Run>>>) -> Vec<Entry> {
    let mut entries = Vec::new();
    loop {
        let batch = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = batch else { return entries };
        match append_all(shared, batch) {
            Ok(more) => entries.extend(more),
            Err(error) => drop(lock(shared).failed.get_or_insert(error)),
        }
    }
}

fn append_all(shared: &Mutex<Appender>, batch: Vec<Run>) -> Result<Vec<Entry>> {
    let append = |run: Run| {
        let name = append(shared, &run.bytes)?;
        Ok(Entry { stream: run.stream, at: run.at, name })
    };
    batch.into_iter().map(append).collect()
}

/// Stores a chunk unless it is stored already.
fn append(shared: &Mutex<Appender>, bytes: &[u8]) -> Result<Name> {
    let name = Name::of(bytes);
    if lock(shared).has(&name) {
        return Ok(name);
    }
    let (codec, stored) = chunk::pack(bytes);
    lock(shared).put(name, codec, bytes.len(), &stored)?;
    Ok(name)
}

impl Appender {
    fn has(&self, name: &Name) -> bool {
        self.new.contains(name) || self.index.chunks.contains_key(name)
    }

    fn put(&mut self, name: Name, codec: chunk::Codec, raw: usize, stored: &[u8]) -> Result<()> {
        if self.has(&name) {
            return Ok(()); // The other thread was faster.
        }
        if self.pack.is_none() {
            self.pack = Some(PackWriter::create(&self.store)?);
        }
        if let Some(pack) = &mut self.pack {
            pack.append(name, codec, raw, stored)?;
        }
        self.new.insert(name);
        Ok(())
    }
}

fn lock(shared: &Mutex<Appender>) -> MutexGuard<'_, Appender> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
