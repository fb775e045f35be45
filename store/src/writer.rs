//! Writing a snapshot. Until it is committed there is no trace of it that anybody would read.
//!
//! Bytes are cut into blocks of sixteen pages, blocks into runs that are not zero, and each run
//! becomes a chunk ([`crate::packer`]).
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use prost::Message;

use crate::api::NewSnapshot;
use crate::chunk::{LARGEST, Name, PAGE};
use crate::epoch;
use crate::error::{Error, Result};
use crate::facts::{Meta, Snapshot};
use crate::index::Index;
use crate::layout::{Lock, Store, VERSION};
use crate::line::Line;
use crate::manifest::{Facts, Leaf, Manifest, Stream};
use crate::pack;
use crate::packer::{Entry, Origin, Packer, Run, full_runs};
use crate::reader::{Entries, Reader};
use crate::space;

/// Bytes that one leaf of a stream's index covers.
const LEAF: u64 = 2 << 20;
/// How many leaves are stored at once.
const LEAVES: usize = 64;
const BLOCK: u64 = LARGEST as u64;
/// The stream that holds the record.
pub(crate) const RECORD: &str = "record";

/// A snapshot in the making.
#[derive(Debug)]
pub struct Writer {
    store: Store,
    workload: String,
    seq: u64,
    parent: Option<Arc<Reader>>,
    line: Line,
    definition: Vec<u8>,
    record_bytes: u64,
    streams: BTreeMap<String, Open>,
    next_id: u32,
    packer: Packer,
    /// Of the parent, as far as they were asked for.
    parents: BTreeMap<String, Arc<Entries>>,
    /// After the others: nothing that we refer to is pruned until the last moment.
    _locks: (Lock, Lock),
}

/// A snapshot all of whose bytes are durable; only the commit is missing.
#[derive(Debug)]
pub struct Sealed {
    writer: Writer,
    streams: Vec<Stream>,
    packs: Vec<String>,
    stored_bytes: u64,
}

impl Sealed {
    /// Makes the snapshot: the manifest, whose rename is the commit.
    pub fn commit(self, meta: Meta) -> Result<Snapshot> {
        let Self { mut writer, streams, packs, stored_bytes } = self;
        let manifest = Manifest {
            version: VERSION,
            workload: writer.workload.clone(),
            seq: writer.seq,
            parent: writer.parent.as_ref().map(|parent| parent.seq()),
            line: writer.line.spans().flat_map(|(first, last)| [first, last]).collect(),
            facts: Facts::of(meta),
            stored_bytes,
            definition: std::mem::take(&mut writer.definition),
            streams,
            packs,
            record_bytes: writer.record_bytes,
        };
        let store = &writer.store;
        let draft = manifest.draft(store)?;
        // One sync of the draft has taken these names along on most file systems: cheap, then.
        store.medium().sync_dir(&store.packs())?;
        if store.numbers(&writer.workload)?.is_empty() {
            store.sync_above(&writer.workload)?;
        }
        draft.commit()?;
        // Even of a snapshot whose manifest somebody removes the number is not given again.
        store.remember_next(&writer.workload, writer.seq + 1);
        manifest.snapshot(&store.manifest(&writer.workload, writer.seq))
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
    /// Up to here it was announced, in whole pages.
    announced: u64,
}

impl Store {
    /// Begins a snapshot of a workload, which goes on from `parent` if there is one.
    pub fn begin(&self, new: NewSnapshot) -> Result<Writer> {
        let NewSnapshot { workload, parent } = new;
        let own = self.own_workload(&workload)?;
        let (joined, condemned) = epoch::join(self)?;
        space::check_reserve(self.dir())?;
        let seq = self.next_number(&workload)?;
        let parent = parent.map(|parent| self.read(&workload, parent)).transpose()?;
        let line = parent.as_ref().map(Reader::line).unwrap_or_default().then(seq);
        let trusted = |name: &str| {
            !condemned.has(name) && !pack::distrust_path(&self.packs().join(name)).exists()
        };
        Ok(Writer {
            store: self.clone(),
            workload,
            seq,
            parent: parent.map(Arc::new),
            line,
            definition: Vec::new(),
            record_bytes: 0,
            streams: BTreeMap::new(),
            next_id: 0,
            packer: Packer::new(self, Index::load(self, &trusted)?),
            parents: BTreeMap::new(),
            _locks: (own, joined),
        })
    }

    /// A number is never used twice, even if its snapshot was forgotten.
    fn next_number(&self, workload: &str) -> Result<u64> {
        let numbers = [self.numbers(workload)?, self.gone_numbers(workload)?];
        let newest = numbers.iter().filter_map(|all| all.last()).max().copied().unwrap_or(0);
        Ok(self.told_next(workload).max(newest + 1))
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
        self.record_bytes = bytes.len() as u64;
        self.stream(RECORD, 0, bytes)
    }

    /// Forgets what was written of a stream.
    pub fn restart(&mut self, name: &str) -> Result<()> {
        self.streams.remove(name);
        Ok(())
    }

    /// Appends bytes to a stream. What is never written is a hole, and reads as zeros; a block that
    /// is written in part is zero in the rest.
    pub fn stream(&mut self, name: &str, mut at: u64, mut bytes: &[u8]) -> Result<()> {
        self.open(name)?;
        if self.streams.get(name).is_some_and(|open| at < open.announced) {
            return Err(descends(name));
        }
        while !bytes.is_empty() {
            let offset = usize::try_from(at % BLOCK).unwrap_or_default();
            self.turn_to(name, at - offset as u64)?;
            let Some(open) = self.streams.get_mut(name) else { break };
            let take = bytes.len().min(LARGEST - offset);
            let (now, later) = bytes.split_at(take);
            if take == LARGEST && open.block.is_empty() {
                // Whole blocks, which is most of memory, need not be gathered.
                let id = open.id;
                open.at = at + BLOCK;
                self.cut(id, at, now)?;
            } else {
                if open.block.len() < offset {
                    open.block.resize(offset, 0);
                }
                let kept = open.block.len().min(offset + take);
                let (old, new) = now.split_at(kept - offset);
                open.block.get_mut(offset..kept).unwrap_or_default().copy_from_slice(old);
                open.block.extend_from_slice(new);
            }
            (at, bytes) = (at + take as u64, later);
        }
        Ok(())
    }

    /// Appends runs of bytes, at their offsets, which are multiples of a page. Threads of ours read them
    /// from where they are, sooner or later: before [`settle`](Self::settle) returns.
    pub fn runs(&mut self, name: &str, runs: &[Run], origin: &Origin) -> Result<()> {
        let id = self.open(name)?;
        for &(mut at, mut len) in runs {
            while len > 0 {
                let offset = usize::try_from(at % BLOCK).unwrap_or_default();
                let take = len.min(LARGEST - offset);
                let fresh = self.turn_to_fresh(name, at - offset as u64)?;
                let Some(open) = self.streams.get_mut(name) else { break };
                if !fresh || at < open.announced || at % PAGE as u64 != 0 {
                    return Err(descends(name));
                }
                open.announced = (at + take as u64).next_multiple_of(PAGE as u64);
                self.packer.announce(id, (at, take), origin)?;
                (at, len) = (at + take as u64, len - take);
            }
        }
        Ok(())
    }

    /// Waits until all that was announced has been read.
    pub fn settle(&mut self) -> Result<()> {
        self.packer.flush()
    }

    /// Says that a range of a stream is as it was in the parent. It takes its place among the
    /// stream's bytes: offsets ascend.
    pub fn unchanged(&mut self, name: &str, range: Range<u64>) -> Result<()> {
        self.open(name)?;
        let missing = || Error::Misuse { what: format!("{name} has no parent") };
        let parent = Arc::clone(self.parent.as_ref().ok_or_else(missing)?);
        let entries = match self.parents.get(name) {
            Some(entries) => Arc::clone(entries),
            None => Arc::new(parent.entries(name)?),
        };
        self.parents.insert(name.to_owned(), Arc::clone(&entries));
        let (start, end) = (range.start, range.end);
        let first = entries.partition_point(|(at, _)| at / BLOCK < start / BLOCK);
        let rest = entries.get(first..).unwrap_or_default();
        for block in rest.chunk_by(|(a, _), (b, _)| a / BLOCK == b / BLOCK) {
            let Some(at) = block.first().map(|(at, _)| at - at % BLOCK) else { continue };
            if at >= end {
                break;
            }
            // A stream's last block ends where the stream does.
            let whole = start <= at && (end - at >= BLOCK || end == u64::MAX);
            let known = block.iter().all(|(_, name)| self.packer.knows(name));
            if whole && known && self.turn_to_fresh(name, at)? {
                let id = self.open(name)?;
                let entry = |(at, name): &(u64, Name)| Entry { stream: id, at: *at, name: *name };
                self.packer.entries.extend(block.iter().map(entry));
                self.pass(name, at + BLOCK);
            } else {
                // A part, or what lies in a pack that is to go.
                parent.pieces(block, start..end, &mut |at, bytes| self.stream(name, at, bytes))?;
            }
        }
        Ok(())
    }

    /// Goes on to a block, and says whether nothing was written of it yet.
    fn turn_to_fresh(&mut self, name: &str, block_at: u64) -> Result<bool> {
        self.turn_to(name, block_at)?;
        Ok(self.streams.get(name).is_some_and(|open| open.block.is_empty()))
    }

    /// What is before `at` is complete.
    fn pass(&mut self, name: &str, at: u64) {
        if let Some(open) = self.streams.get_mut(name) {
            open.at = at;
        }
    }

    fn open(&mut self, name: &str) -> Result<u32> {
        if let Some(open) = self.streams.get(name) {
            return Ok(open.id);
        }
        let id = self.next_id;
        let too_many = || Error::Misuse { what: "there are too many streams".into() };
        self.next_id = id.checked_add(1).ok_or_else(too_many)?;
        let open = Open { id, at: 0, block: Vec::new(), announced: 0 };
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
            return Err(descends(name));
        }
        let mut block = std::mem::take(&mut open.block);
        let (id, at) = (open.id, open.at);
        open.at = block_at;
        self.cut(id, at, &block)?;
        block.clear();
        if let Some(open) = self.streams.get_mut(name) {
            open.block = block;
        }
        Ok(())
    }

    /// Cuts a block into runs without zero pages.
    fn cut(&mut self, stream: u32, at: u64, block: &[u8]) -> Result<()> {
        for (from, to) in full_runs(block) {
            let bytes = block.get(from..to).unwrap_or_default();
            self.packer.push(stream, at + from as u64, bytes)?;
        }
        Ok(())
    }

    /// Makes every byte durable: the slow part of a commit.
    pub fn seal(mut self) -> Result<Sealed> {
        let names: Vec<_> = self.streams.keys().cloned().collect();
        for name in names {
            self.turn_to(&name, u64::MAX - u64::MAX % BLOCK)?;
        }
        self.packer.flush()?;
        let (streams, mut packs) = self.indexes()?;
        // A draft still: what it takes is free again when it is dropped.
        space::check_reserve(self.store.dir())?;
        let (stored_bytes, pack) = self.packer.seal()?;
        packs.extend(pack);
        Ok(Sealed { writer: self, streams, packs, stored_bytes })
    }

    /// Seals and commits.
    pub fn commit(self, meta: Meta) -> Result<Snapshot> {
        self.seal()?.commit(meta)
    }

    /// Writes the leaves of all streams; says where they are, and in which packs all of it lies.
    fn indexes(&mut self) -> Result<(Vec<Stream>, Vec<String>)> {
        let mut by_stream: BTreeMap<u32, Entries> = BTreeMap::new();
        for entry in std::mem::take(&mut self.packer.entries) {
            by_stream.entry(entry.stream).or_default().push((entry.at, entry.name));
        }
        let (mut streams, mut owners, mut leaves) = (Vec::new(), Vec::new(), Vec::new());
        let mut names = Vec::new();
        for (number, (name, open)) in self.streams.iter().enumerate() {
            streams.push(Stream { name: name.clone(), leaves: Vec::new() });
            let entries = by_stream.entry(open.id).or_default();
            entries.sort_unstable();
            for part in entries.chunk_by(|(a, _), (b, _)| a / LEAF == b / LEAF) {
                let leaf = Leaf {
                    at: part.iter().map(|(at, _)| *at).collect(),
                    names: part.iter().flat_map(|(_, name)| name.0).collect(),
                };
                owners.push(number);
                leaves.push(leaf.encode_to_vec());
                if leaves.len() == LEAVES {
                    names.extend(self.packer.store(&std::mem::take(&mut leaves))?);
                }
            }
        }
        names.extend(self.packer.store(&leaves)?);
        for (number, name) in owners.iter().zip(&names) {
            if let Some(stream) = streams.get_mut(*number) {
                stream.leaves.push(name.0.to_vec());
            }
        }
        let live = self.streams.values().filter_map(|open| by_stream.get(&open.id));
        let chunks = live.flatten().map(|(_, name)| name);
        let packs = self.packer.packs_of(chunks.chain(&names));
        Ok((streams, packs))
    }
}

fn descends(name: &str) -> Error {
    Error::Misuse { what: format!("offsets of {name} do not ascend") }
}
