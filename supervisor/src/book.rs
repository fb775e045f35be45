//! What is known about workloads: definitions, states, events, and which snapshots there are.
//!
//! One place for the rest of the crate to ask; kept in the store's catalog, by a store that stays
//! open as long as the book does.
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Utc};
use prost::Message;
use store::{Event, Store, Workload};

use crate::definition::Definition;
use crate::error::{Error, Result};
use crate::home::Home;

/// A workload, as it was last heard of.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Entry {
    /// What it is.
    pub definition: Definition,
    /// The word for what it is doing. Not whether a snapshot is being taken: only its keeper knows.
    pub state: String,
    /// How often it was started again.
    pub restarts: u64,
    /// How often it was restored.
    pub restores: u64,
    /// Its last exit status.
    pub exit_code: Option<i32>,
    /// When it was last started or restored, in milliseconds since 1970.
    pub started_at_ms: u64,
    /// The boot that it was last kept in.
    pub boot: String,
    /// Somebody has asked for its end, which is no crash then, whoever sees it.
    pub asked: bool,
    /// When it was first started afresh by a person.
    pub begun_at_ms: u64,
}

/// What the catalog keeps for us without knowing what it is.
#[derive(Clone, PartialEq, prost::Message)]
struct Charter {
    #[prost(message, required, tag = "1")]
    definition: Definition,
    #[prost(string, tag = "2")]
    boot: String,
    #[prost(bool, tag = "3")]
    asked: bool,
    #[prost(uint64, tag = "4")]
    begun_at_ms: u64,
}

impl Entry {
    /// Whether it ought to be running: somebody kept it in this boot, and never wrote how it ended.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.is_over() && self.boot == boot()
    }

    fn is_over(&self) -> bool {
        ["finished", "failed", "stopped", ""].contains(&self.state.as_str())
    }

    /// Of a workload that does not run: it may have gone down with the machine.
    #[must_use]
    pub fn as_it_ended(mut self) -> Self {
        if !self.is_over() {
            "failed".clone_into(&mut self.state);
        }
        self
    }

    fn row(&self) -> Workload {
        let (definition, boot) = (self.definition.clone(), self.boot.clone());
        let charter =
            Charter { definition, boot, asked: self.asked, begun_at_ms: self.begun_at_ms };
        Workload {
            name: self.definition.name.clone(),
            definition: charter.encode_to_vec(),
            state: self.state.clone(),
            restarts: self.restarts,
            restores: self.restores,
            exit_code: self.exit_code,
            started_at: time(self.started_at_ms),
        }
    }

    fn of(row: Workload) -> Result<Self> {
        let damaged = |_| Error::Damaged(format!("what the catalog says of {:?}", row.name));
        let charter = Charter::decode(row.definition.as_slice()).map_err(damaged)?;
        Ok(Self {
            definition: charter.definition,
            state: row.state,
            restarts: row.restarts,
            restores: row.restores,
            exit_code: row.exit_code,
            started_at_ms: row.started_at.map_or(0, milliseconds),
            boot: charter.boot,
            asked: charter.asked,
            begun_at_ms: charter.begun_at_ms,
        })
    }
}

/// Which boot this is: `/proc/sys/kernel/random/boot_id`.
#[must_use]
pub fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// Its place among all events: later ones have higher numbers.
    pub number: i64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What: the stable word.
    pub kind: String,
    /// The snapshot concerned.
    pub seq: Option<u64>,
    /// Why.
    pub reason: String,
    /// More, as a JSON document.
    pub detail: Option<String>,
}

/// The book of one state directory.
#[derive(Debug)]
pub struct Book {
    store: Store,
}

impl Book {
    /// Opens it.
    pub fn open(home: &Home) -> Result<Self> {
        // Two who make the same store at once would be in each other's way.
        let alone = if home.dir().join("format").exists() { None } else { Some(home.lock_all()?) };
        let store = Store::create(home.dir(), store::Options::default())?;
        drop(alone);
        Ok(Self { store })
    }

    /// The store that it is kept in.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What is known of a workload.
    pub fn entry(&self, name: &str) -> Result<Entry> {
        let missing = || Error::Missing(format!("workload {name:?}"));
        Entry::of(self.store.workload(name)?.ok_or_else(missing)?)
    }

    /// Writes what is known now.
    pub fn put(&self, entry: &Entry) -> Result<()> {
        Ok(self.store.put_workload(&entry.row())?)
    }

    /// Forgets a workload that has no snapshots.
    pub fn forget(&self, name: &str) -> Result<()> {
        Ok(self.store.remove_workload(name)?)
    }

    /// A small fact about a workload.
    pub fn fact(&self, name: &str, key: &str) -> Result<Option<String>> {
        Ok(self.store.fact(name, key)?)
    }

    /// Keeps one; `None` removes it.
    pub fn set_fact(&self, name: &str, key: &str, value: Option<&str>) -> Result<()> {
        Ok(self.store.set_fact(name, key, value)?)
    }

    /// All workloads, by name.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        self.store.workloads()?.into_iter().map(Entry::of).collect()
    }

    /// All workloads' names.
    pub fn names(&self) -> Result<Vec<String>> {
        Ok(self.store.workloads()?.into_iter().map(|row| row.name).collect())
    }

    /// Adds an event.
    pub fn happened(&self, name: &str, kind: &str, seq: Option<u64>, reason: &str) -> Result<()> {
        let unknown = |_| Error::Refused(format!("{kind:?} is no kind of event"));
        let event = Event {
            at: Utc::now(),
            workload: name.to_owned(),
            kind: kind.parse().map_err(unknown)?,
            seq,
            reason: reason.to_owned(),
            detail: None,
        };
        Ok(self.store.record_event(&event).map(drop)?)
    }

    /// All events of a workload, oldest first.
    pub fn happenings(&self, name: &str) -> Result<Vec<Happening>> {
        self.entry(name)?;
        self.happenings_after(name, 0)
    }

    /// Those after the one with this number.
    pub fn happenings_after(&self, name: &str, number: i64) -> Result<Vec<Happening>> {
        let events = self.store.events(Some(name), number)?;
        let told = |(number, event): (i64, Event)| Happening {
            number,
            at_ms: milliseconds(event.at),
            kind: event.kind.as_str().to_owned(),
            seq: event.seq,
            reason: event.reason,
            detail: event.detail,
        };
        Ok(events.into_iter().map(told).collect())
    }

    /// Numbers of the restorable snapshots on a workload's current line, oldest first.
    pub fn line(&self, name: &str) -> Result<Vec<u64>> {
        let mut line = self.store.restorable(name)?;
        line.reverse();
        Ok(line)
    }

    /// Whether there is any snapshot of it, on whatever line.
    pub fn has_snapshots(&self, name: &str) -> Result<bool> {
        Ok(!self.store.numbers(name)?.is_empty())
    }

    /// Makes this snapshot the end of the current line; `None`: a fresh start.
    pub fn rewind(&self, name: &str, seq: Option<u64>) -> Result<()> {
        self.store.rewind(name, seq).map(drop).map_err(Error::from)
    }
}

/// Milliseconds since 1970.
#[allow(clippy::disallowed_methods)]
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn milliseconds(at: DateTime<Utc>) -> u64 {
    u64::try_from(at.timestamp_millis()).unwrap_or(0)
}

fn time(at_ms: u64) -> Option<DateTime<Utc>> {
    i64::try_from(at_ms).ok().filter(|at| *at > 0).and_then(DateTime::from_timestamp_millis)
}
