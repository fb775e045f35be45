//! The shape of the interface; its body follows in the next commits.
use std::io;
use std::ops::Range;
use std::path::Path;

use crate::{Error, Event, Line, Meta, Result, Snapshot, Workload};

fn later<T>() -> Result<T> {
    Err(Error::Misuse { what: "not built yet".to_owned() })
}

/// How to open a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Use it even when it belongs to another user.
    pub trust: bool,
    /// Keep a catalog (an image made by `dump` has none).
    pub catalog: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { trust: false, catalog: true }
    }
}

/// A directory of snapshots. Cheap to clone, and shared between threads and processes.
#[derive(Debug, Clone)]
pub struct Store {}

/// What a snapshot needs to know before its first byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSnapshot {
    /// Whose.
    pub workload: String,
    /// The snapshot that `unchanged` refers to.
    pub parent: Option<u64>,
}

/// A snapshot being written. Dropping it leaves no trace.
#[derive(Debug)]
pub struct Writer {}

/// A snapshot all of whose bytes are durable; only the commit is missing.
#[derive(Debug)]
pub struct Sealed {}

/// A snapshot being read.
#[derive(Debug)]
pub struct Reader {}

/// A stream of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// Its name.
    pub name: String,
    /// Its length: the end of the last byte written, zeros included.
    pub end: u64,
}

impl Store {
    /// Opens a store, making it where there is none.
    pub fn create(_dir: &Path, _options: Options) -> Result<Self> {
        later()
    }
    /// Opens a store that must be there.
    pub fn open(_dir: &Path, _options: Options) -> Result<Self> {
        later()
    }
    /// Begins a snapshot.
    pub fn begin(&self, _new: NewSnapshot) -> Result<Writer> {
        later()
    }
    /// Opens a snapshot for reading.
    pub fn read(&self, _workload: &str, _seq: u64) -> Result<Reader> {
        later()
    }
    /// Lists snapshots, of one workload or all, oldest first.
    pub fn snapshots(&self, _workload: Option<&str>) -> Result<Vec<Snapshot>> {
        later()
    }
    /// Finds one snapshot.
    pub fn snapshot(&self, _workload: &str, _seq: u64) -> Result<Snapshot> {
        later()
    }
    /// The workload's current line.
    pub fn line(&self, _workload: &str) -> Result<Line> {
        later()
    }
    /// Makes `seq` the end of the current line (a rollback), or nothing (a fresh start). Durable.
    pub fn rewind(&self, _workload: &str, _seq: Option<u64>) -> Result<Line> {
        later()
    }
    /// The restorable snapshots of the current line, newest first.
    pub fn restorable(&self, _workload: &str) -> Result<Vec<u64>> {
        later()
    }
    /// Removes snapshots; `prune` frees their space.
    pub fn forget(&self, _workload: &str, _seqs: &[u64]) -> Result<()> {
        later()
    }
    /// Marks a snapshot as damaged, so that it is not restored.
    pub fn mark_damaged(&self, _workload: &str, _seq: u64) -> Result<()> {
        later()
    }
    /// Keeps an event, and says its number.
    pub fn record_event(&self, _event: &Event) -> Result<i64> {
        later()
    }
    /// The events of a workload (or all) with numbers above `after`, oldest first.
    pub fn events(&self, _workload: Option<&str>, _after: i64) -> Result<Vec<(i64, Event)>> {
        later()
    }
    /// What is kept about a workload.
    pub fn workload(&self, _name: &str) -> Result<Option<Workload>> {
        later()
    }
    /// All workloads, by name.
    pub fn workloads(&self) -> Result<Vec<Workload>> {
        later()
    }
    /// Keeps what is to be known about a workload.
    pub fn put_workload(&self, _workload: &Workload) -> Result<()> {
        later()
    }
    /// Forgets a workload's row, facts and events (not its snapshots).
    pub fn remove_workload(&self, _name: &str) -> Result<()> {
        later()
    }
    /// A small fact that the supervisor keeps about a workload.
    pub fn fact(&self, _workload: &str, _key: &str) -> Result<Option<String>> {
        later()
    }
    /// Keeps it; `None` removes it.
    pub fn set_fact(&self, _workload: &str, _key: &str, _value: Option<&str>) -> Result<()> {
        later()
    }
}

impl Writer {
    /// Appends bytes to a named stream; what is never written is a hole, and reads as zeros.
    pub fn stream(&mut self, _name: &str, _at: u64, _bytes: &[u8]) -> Result<()> {
        later()
    }
    /// Says that a range of a stream is as it was in the parent.
    pub fn unchanged(&mut self, _name: &str, _range: Range<u64>) -> Result<()> {
        later()
    }
    /// Forgets what was written of a stream so far.
    pub fn restart(&mut self, _name: &str) -> Result<()> {
        later()
    }
    /// Sets the engine's records.
    pub fn record(&mut self, _bytes: &[u8]) -> Result<()> {
        later()
    }
    /// Sets the workload's definition.
    pub fn definition(&mut self, _bytes: &[u8]) -> Result<()> {
        later()
    }
    /// Makes every byte durable: the slow part of a commit.
    pub fn seal(self) -> Result<Sealed> {
        later()
    }
    /// Seals and commits.
    pub fn commit(self, meta: Meta) -> Result<Snapshot> {
        self.seal()?.commit(meta)
    }
}

impl Sealed {
    /// Makes the snapshot exist.
    pub fn commit(self, _meta: Meta) -> Result<Snapshot> {
        later()
    }
}

impl Reader {
    /// The snapshot, as listed.
    pub fn snapshot(&self) -> &Snapshot {
        unreachable!()
    }
    /// The engine's records.
    pub fn record(&self) -> Result<Vec<u8>> {
        later()
    }
    /// The workload's definition.
    pub fn definition(&self) -> &[u8] {
        &[]
    }
    /// The streams, by name.
    pub fn streams(&self) -> Result<Vec<StreamInfo>> {
        later()
    }
    /// Visits what was written of a stream, ascending, whole zero pages left out.
    pub fn stream(
        &self,
        _name: &str,
        _visit: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> Result<()> {
        later()
    }
}
