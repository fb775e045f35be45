//! What users of a store ask of it, beside reading and writing snapshots: mostly the catalog's.
//!
//! The catalog is opened for each question: several processes ask, and none keeps it locked.
use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::facts::{Event, Snapshot, SnapshotState, Workload};
use crate::layout::Store;
use crate::line::Line;
use crate::packer::Compression;

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

/// What a snapshot needs to know before its first byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSnapshot {
    /// Whose.
    pub workload: String,
    /// The snapshot that it goes on from, and that `unchanged` refers to.
    pub parent: Option<u64>,
    /// What compressing may cost.
    pub compression: Compression,
}

/// A stream of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// Its name.
    pub name: String,
    /// Offset of its last chunk: where its last bytes begin.
    pub last_at: u64,
}

impl Store {
    fn catalog(&self) -> Result<Catalog> {
        if !self.keeps_catalog() {
            return Err(Error::Misuse { what: "an image has no catalog".into() });
        }
        Catalog::open(self)
    }

    /// Lists snapshots, of one workload or all, oldest first.
    pub fn snapshots(&self, workload: Option<&str>) -> Result<Vec<Snapshot>> {
        let names = workload.map_or_else(|| self.names(), |name| Ok(vec![name.to_owned()]))?;
        if !self.keeps_catalog() {
            let numbered = |name: &String| {
                let numbers = self.numbers(name)?;
                numbers.into_iter().map(|seq| self.snapshot(name, seq)).collect::<Result<Vec<_>>>()
            };
            return Ok(names.iter().map(numbered).collect::<Result<Vec<_>>>()?.concat());
        }
        let catalog = self.catalog()?;
        let all: Result<Vec<_>> = names.iter().map(|name| catalog.snapshots(name)).collect();
        Ok(all?.concat())
    }

    /// The workload's current line.
    pub fn line(&self, workload: &str) -> Result<Line> {
        self.catalog()?.current_line(workload)
    }

    /// Makes `seq` the end of the current line (a roll back), or nothing (a fresh start). Durable.
    pub fn rewind(&self, workload: &str, seq: Option<u64>) -> Result<Line> {
        let catalog = self.catalog()?;
        catalog.set_head(workload, seq)?;
        catalog.current_line(workload)
    }

    /// The restorable snapshots of the current line, newest first.
    pub fn restorable(&self, workload: &str) -> Result<Vec<u64>> {
        let mut line = self.catalog()?.restorable(workload)?;
        line.reverse();
        Ok(line)
    }

    /// Marks a snapshot as damaged, so that it is not restored.
    pub fn mark_damaged(&self, workload: &str, seq: u64) -> Result<()> {
        self.catalog()?.mark(workload, seq, SnapshotState::Damaged, "it could not be restored")
    }

    /// Keeps an event, and says its number.
    pub fn record_event(&self, event: &Event) -> Result<i64> {
        self.catalog()?.happened(event)
    }

    /// The events of a workload (or all) with numbers above `after`, oldest first.
    pub fn events(&self, workload: Option<&str>, after: i64) -> Result<Vec<(i64, Event)>> {
        self.catalog()?.events(workload, after)
    }

    /// Keeps only the newest events of a workload, so many.
    pub fn trim_events(&self, workload: &str, keep: u64) -> Result<()> {
        self.catalog()?.trim_events(workload, keep)
    }

    /// What is kept about a workload.
    pub fn workload(&self, name: &str) -> Result<Option<Workload>> {
        self.catalog()?.workload(name)
    }

    /// All workloads, by name.
    pub fn workloads(&self) -> Result<Vec<Workload>> {
        let catalog = self.catalog()?;
        let names = catalog.names()?;
        let found = names.iter().map(|name| catalog.workload(name)).collect::<Result<Vec<_>>>()?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Keeps what is to be known about a workload.
    pub fn put_workload(&self, workload: &Workload) -> Result<()> {
        self.catalog()?.put(workload)
    }

    /// Forgets a workload's row, facts and events (not its snapshots).
    pub fn remove_workload(&self, name: &str) -> Result<()> {
        self.catalog()?.remove(name)
    }

    /// A small fact that the supervisor keeps about a workload.
    pub fn fact(&self, workload: &str, key: &str) -> Result<Option<String>> {
        self.catalog()?.fact(workload, key)
    }

    /// Keeps it; `None` removes it.
    pub fn set_fact(&self, workload: &str, key: &str, value: Option<&str>) -> Result<()> {
        self.catalog()?.set_fact(workload, key, value)
    }
}
