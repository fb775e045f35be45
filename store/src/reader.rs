//! Reading a snapshot back.
use std::collections::HashSet;
use std::io;

use prost::Message;

use crate::api::StreamInfo;
use crate::chunk::Name;
use crate::error::{Error, Result};
use crate::facts::Snapshot;
use crate::layout::{Lock, Store};
use crate::line::Line;
use crate::manifest::{Leaf, Manifest};
use crate::pack::Index;
use crate::writer::RECORD;

/// How much is given to a visitor at once, at most.
const WINDOW: usize = 1 << 20;

/// A snapshot being read; nothing that it needs is pruned meanwhile.
#[derive(Debug)]
pub struct Reader {
    store: Store,
    manifest: Manifest,
    snapshot: Snapshot,
    index: Index,
    _lock: Lock,
}

impl Store {
    /// Opens a snapshot.
    pub fn read(&self, workload: &str, seq: u64) -> Result<Reader> {
        let lock = self.share()?;
        let manifest = Manifest::read(self, workload, seq)?;
        let snapshot = manifest.snapshot(&self.manifest(workload, seq))?;
        let (store, index) = (self.clone(), Index::load(self)?);
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
        let mut record = Vec::new();
        self.visit(RECORD, &mut |at, bytes| {
            // A run of zero pages was a hole.
            record.resize(usize::try_from(at).unwrap_or(usize::MAX), 0);
            record.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(record)
    }

    /// The streams, by name, without the record.
    pub fn streams(&self) -> Result<Vec<StreamInfo>> {
        let names = self.manifest.streams.iter().map(|stream| &stream.name);
        let info = |name: &String| {
            let last_at = self.entries(name)?.last().map_or(0, |(at, _)| *at);
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

    fn visit(&self, name: &str, visit: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>) -> Result<()> {
        let failed = |source| Error::Io { path: self.store.dir().to_owned(), op: "use", source };
        let (mut start, mut window) = (0, Vec::with_capacity(WINDOW));
        for (at, chunk) in self.entries(name)? {
            let bytes = self.index.read(&chunk, &self.store)?;
            let follows = start + window.len() as u64 == at;
            if !window.is_empty() && (!follows || window.len() + bytes.len() > WINDOW) {
                visit(start, &window).map_err(failed)?;
                window.clear();
            }
            if window.is_empty() {
                start = at;
            }
            window.extend_from_slice(&bytes);
        }
        if window.is_empty() { Ok(()) } else { visit(start, &window).map_err(failed) }
    }

    /// Offset and name of each chunk of a stream.
    pub(crate) fn entries(&self, name: &str) -> Result<Vec<(u64, Name)>> {
        let stream = self.manifest.streams.iter().find(|stream| stream.name == name);
        let mut all = Vec::new();
        for leaf in stream.into_iter().flat_map(|stream| &stream.leaves) {
            all.extend(read_leaf(&self.store, &self.manifest, &self.index, leaf)?.1);
        }
        Ok(all)
    }

    /// All chunks that a snapshot needs, leaves included.
    pub(crate) fn needs_of(
        store: &Store,
        manifest: &Manifest,
        index: &Index,
        all: &mut HashSet<Name>,
    ) -> Result<()> {
        for name in manifest.streams.iter().flat_map(|stream| &stream.leaves) {
            let (leaf, entries) = read_leaf(store, manifest, index, name)?;
            all.insert(leaf);
            all.extend(entries.into_iter().map(|(_, name)| name));
        }
        Ok(())
    }

    /// Reads everything, and compares each chunk with its name.
    pub fn verify(&self) -> Result<()> {
        let mut all = HashSet::new();
        Self::needs_of(&self.store, &self.manifest, &self.index, &mut all)?;
        for name in &all {
            let bytes = self.index.read(name, &self.store)?;
            if Name::of(&bytes) != *name {
                return Err(Error::damaged(
                    self.store.dir(),
                    0,
                    "a chunk is not what its name says",
                ));
            }
        }
        Ok(())
    }
}

type Entries = Vec<(u64, Name)>;

fn read_leaf(
    store: &Store,
    manifest: &Manifest,
    index: &Index,
    name: &[u8],
) -> Result<(Name, Entries)> {
    let path = store.manifest(&manifest.workload, manifest.seq);
    let damaged = |why| Error::damaged(&path, 0, why);
    let name = Name(name.try_into().map_err(|_| damaged("a name is not 32 bytes"))?);
    let bytes = index.read(&name, store)?;
    let leaf = Leaf::decode(bytes.as_slice()).map_err(|_| damaged("a leaf does not decode"))?;
    Ok((name, leaf.entries().ok_or_else(|| damaged("a leaf is not whole"))?))
}
