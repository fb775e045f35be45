//! What is known about workloads: definitions, states, events, and which snapshots there are.
//!
//! One place for the rest of the crate to ask, whatever keeps it.
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;
use serde::{Deserialize, Serialize};

use crate::definition::Definition;
use crate::error::{Error, Result, cannot};
use crate::home::Home;

/// A workload, as it was last heard of.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Entry {
    /// What it is.
    #[prost(message, required, tag = "1")]
    pub definition: Definition,
    /// The word for what it is doing.
    #[prost(string, tag = "2")]
    pub state: String,
    /// How often it was started again.
    #[prost(uint64, tag = "3")]
    pub restarts: u64,
    /// How often it was restored.
    #[prost(uint64, tag = "4")]
    pub restores: u64,
    /// Its last exit status.
    #[prost(int32, optional, tag = "5")]
    pub exit_code: Option<i32>,
    /// When it was last started or restored, in milliseconds since 1970.
    #[prost(uint64, tag = "6")]
    pub started_at_ms: u64,
    /// The boot that it was last kept in.
    #[prost(string, tag = "7")]
    pub boot: String,
}

impl Entry {
    /// Whether it ought to be running: somebody kept it in this boot, and never wrote how it ended.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let over = ["finished", "failed", "stopped", ""].contains(&self.state.as_str());
        !over && self.boot == boot()
    }
}

/// Which boot this is: `/proc/sys/kernel/random/boot_id`.
#[must_use]
pub fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happening {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What: the stable word.
    pub kind: String,
    /// The snapshot concerned.
    pub seq: Option<u64>,
    /// Why.
    pub reason: String,
}

/// The book of one state directory.
#[derive(Debug, Clone)]
pub struct Book(Home);

impl Book {
    /// Opens it.
    pub fn open(home: &Home) -> Result<Self> {
        Ok(Self(home.clone()))
    }

    /// What is known of a workload.
    pub fn entry(&self, name: &str) -> Result<Entry> {
        let bytes = fs::read(self.0.logs(name, "workload"));
        let entry = bytes.ok().and_then(|bytes| Entry::decode(bytes.as_slice()).ok());
        entry.ok_or_else(|| Error::Missing(format!("workload {name:?}")))
    }

    /// Writes what is known now.
    pub fn put(&self, entry: &Entry) -> Result<()> {
        let path = self.0.logs(&entry.definition.name, "workload");
        let next = path.with_extension("workload-next");
        fs::write(&next, entry.encode_to_vec()).map_err(cannot("write the catalog"))?;
        fs::rename(next, path).map_err(cannot("write the catalog"))
    }

    /// All workloads' names.
    pub fn names(&self) -> Result<Vec<String>> {
        let dir = fs::read_dir(self.0.dir().join("logs")).map_err(cannot("read the catalog"))?;
        let names = dir.flatten().filter_map(|file| file.file_name().into_string().ok());
        let names = names.filter_map(|name| Some(name.strip_suffix(".workload")?.to_owned()));
        let mut names: Vec<_> = names.collect();
        names.sort();
        Ok(names)
    }

    /// Adds an event.
    pub fn happened(&self, name: &str, kind: &str, seq: Option<u64>, reason: &str) -> Result<()> {
        let (kind, reason) = (kind.to_owned(), reason.to_owned());
        let line = serde_json::to_string(&Happening { at_ms: now_ms(), kind, seq, reason });
        let line = line.map_err(|error| Error::Refused(error.to_string()))? + "\n";
        let path = self.0.logs(name, "events");
        let file = OpenOptions::new().append(true).create(true).open(path);
        let mut file = file.map_err(cannot("write the catalog"))?;
        file.write_all(line.as_bytes()).map_err(cannot("write the catalog"))
    }

    /// All events of a workload, oldest first.
    pub fn happenings(&self, name: &str) -> Result<Vec<Happening>> {
        self.entry(name)?;
        let text = fs::read_to_string(self.0.logs(name, "events")).unwrap_or_default();
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Numbers of the restorable snapshots on a workload's current line, oldest first.
    pub fn line(&self, name: &str) -> Result<Vec<u64>> {
        let store = store::Store::open(self.0.dir(), store::Options::default());
        let mut line = store.and_then(|store| store.restorable(name)).unwrap_or_default();
        line.reverse();
        Ok(line)
    }

    /// Makes this snapshot the end of the current line; `None`: a fresh start.
    pub fn rewind(&self, name: &str, seq: Option<u64>) -> Result<()> {
        let store = store::Store::open(self.0.dir(), store::Options::default())?;
        store.rewind(name, seq).map(drop).map_err(Error::from)
    }
}

/// Milliseconds since 1970.
#[allow(clippy::disallowed_methods)]
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
