//! Writing a snapshot. Until it is committed there is no trace of it that anybody would read.
//!
//! Bytes are cut into blocks of sixteen pages ([`open`]), blocks into runs that are not zero, and each
//! run becomes a chunk ([`crate::packer`]). What is as in the parent refers to the parent's chunks.
mod leaves;
mod open;
mod worn;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use self::open::{Inherited, Open};
use crate::api::NewSnapshot;
use crate::epoch;
use crate::error::{Error, Result};
use crate::facts::{Meta, Snapshot};
use crate::index::Index;
use crate::layout::{Lock, Store, VERSION};
use crate::line::Line;
use crate::manifest::{Facts, Manifest, Stream};
use crate::pack;
use crate::packer::{Origin, Packer, Run};
use crate::reader::Reader;
use crate::space;

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

impl Store {
    /// Begins a snapshot of a workload, which goes on from `parent` if there is one.
    pub fn begin(&self, new: NewSnapshot) -> Result<Writer> {
        let NewSnapshot { workload, parent, compression } = new;
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
            packer: Packer::new(self, Index::load(self, &trusted)?, compression),
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
    pub fn stream(&mut self, name: &str, at: u64, bytes: &[u8]) -> Result<()> {
        let (open, packer) = self.open(name)?;
        open.give(at, bytes, packer)
    }

    /// Appends runs of bytes, at their offsets, which are multiples of a page. Threads of ours read them
    /// from where they are, sooner or later: before [`settle`](Self::settle) returns.
    pub fn runs(&mut self, name: &str, runs: &[Run], origin: &Origin) -> Result<()> {
        let (open, packer) = self.open(name)?;
        open.announce(runs, origin, packer)
    }

    /// Waits until all that was announced has been read.
    pub fn settle(&mut self) -> Result<()> {
        let Self { streams, packer, .. } = self;
        streams.values_mut().try_for_each(|open| open.hand_over(packer))?;
        packer.flush()
    }

    /// Says that a range of a stream is as it was in the parent. It takes its place among the
    /// stream's bytes: offsets ascend. Whole pages cost nothing: the parent's chunks are referred to.
    pub fn unchanged(&mut self, name: &str, range: Range<u64>) -> Result<()> {
        let missing = || Error::Misuse { what: format!("{name} has no parent") };
        let reader = Arc::clone(self.parent.as_ref().ok_or_else(missing)?);
        let (open, packer) = self.open(name)?;
        if open.inherited.is_none() {
            let entries = reader.entries(name)?;
            open.inherited = Some(Arc::new(Inherited { reader, entries }));
        }
        open.unchanged(&range, packer)
    }

    fn open(&mut self, name: &str) -> Result<(&mut Open, &mut Packer)> {
        let Self { streams, packer, next_id, .. } = self;
        let too_many = || Error::Misuse { what: "there are too many streams".into() };
        if !streams.contains_key(name) {
            let id = *next_id;
            *next_id = id.checked_add(1).ok_or_else(too_many)?;
            streams.insert(name.to_owned(), Open::new(name, id));
        }
        Ok((streams.get_mut(name).ok_or_else(too_many)?, packer))
    }

    /// Makes every byte durable: the slow part of a commit.
    pub fn seal(mut self) -> Result<Sealed> {
        let Self { streams, packer, .. } = &mut self;
        streams.values_mut().try_for_each(|open| open.turn_to(u64::MAX, packer))?;
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
}
