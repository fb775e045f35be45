//! What the store tells about workloads and snapshots: plain facts, in the words of the command
//! line.
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};

use crate::line::Line;

/// Makes a closed set of words: an enum, its words, and the way back.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$variant_doc])* $variant),* }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The word that people and scripts see.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.pad(self.as_str()) }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                Self::ALL.iter().copied().find(|one| one.as_str() == word)
                    .ok_or_else(|| UnknownWord(word.to_owned()))
            }
        }
    };
}

/// A word that is not of the set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a word known here")]
pub struct UnknownWord(pub String);

words! {
    /// Why a snapshot was taken.
    Trigger {
        /// The first one of a workload with a schedule.
        Start = "start",
        /// `--every` or `--cron`.
        Schedule = "schedule",
        /// A signal sent to the keeper.
        Signal = "signal",
        /// A file that appeared.
        File = "file",
        /// Enough memory changed.
        Dirty = "dirty",
        /// Somebody asked for it.
        Request = "request",
        /// The machine goes down.
        Shutdown = "shutdown",
        /// The program itself asked.
        Api = "api",
    }
}

words! {
    /// How it was known which pages changed.
    Tracker {
        /// `clear_refs` and pagemap bit 55.
        SoftDirty = "soft-dirty",
        /// userfaultfd, asynchronous write protection.
        WriteProtect = "write-protect",
        /// Everything was read.
        Full = "full",
    }
}

words! {
    /// How far a snapshot can be trusted.
    SnapshotState {
        /// Written and committed.
        Complete = "complete",
        /// And since then read back in full.
        Verified = "verified",
        /// Known not to restore.
        Damaged = "damaged",
    }
}

words! {
    /// What happened to a workload.
    EventKind {
        /// It began.
        Started = "started",
        /// A snapshot was committed.
        Checkpointed = "checkpointed",
        /// A snapshot was tried, and failed.
        CheckpointFailed = "checkpoint-failed",
        /// A snapshot was not tried.
        CheckpointSkipped = "checkpoint-skipped",
        /// It ended in a way that counts as a crash.
        Crashed = "crashed",
        /// It runs again, from a snapshot.
        Restored = "restored",
        /// A snapshot could not be restored.
        RestoreFailed = "restore-failed",
        /// Recovery chose an older snapshot.
        SteppedBack = "stepped-back",
        /// Recovery began from nothing.
        StartedFresh = "started-fresh",
        /// Recovery waits.
        Backoff = "backoff",
        /// Recovery gave up.
        Failed = "failed",
        /// It ended normally.
        Finished = "finished",
        /// It was ended by request.
        Stopped = "stopped",
        /// It was taken back to a snapshot by request.
        RolledBack = "rolled-back",
        /// A keeper took charge.
        KeeperStarted = "keeper-started",
        /// Anything else worth keeping.
        Note = "note",
    }
}

/// What the taker of a snapshot knows about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Meta {
    /// When the program stood still.
    pub taken_at: DateTime<Utc>,
    /// Why it was taken.
    pub trigger: Trigger,
    /// How long the program stood still.
    pub pause_ms: f64,
    /// How long all of it took, as far as is known ([`crate::Sealed`] comes late for that).
    pub took_ms: f64,
    /// Processes in the tree.
    pub processes: u64,
    /// Threads in the tree.
    pub threads: u64,
    /// Resident memory that the snapshot holds.
    pub memory_bytes: u64,
    /// Of it, what changed since the parent.
    pub changed_bytes: u64,
    /// How that was known.
    pub tracker: Tracker,
    /// Words that somebody attached.
    pub tags: Vec<String>,
    /// What is worth knowing about it.
    pub notes: Vec<String>,
}

impl Meta {
    /// Of a snapshot whose own does not read.
    pub(crate) fn unknown(taken_at: DateTime<Utc>, why: String) -> Self {
        Self { notes: vec![why], ..Self::at(taken_at) }
    }

    /// Of one of which no more is known yet.
    #[must_use]
    pub fn at(taken_at: DateTime<Utc>) -> Self {
        Self {
            taken_at,
            trigger: Trigger::Request,
            pause_ms: 0.0,
            took_ms: 0.0,
            processes: 0,
            threads: 0,
            memory_bytes: 0,
            changed_bytes: 0,
            tracker: Tracker::Full,
            tags: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// A snapshot, as listed.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Whose.
    pub workload: String,
    /// Its number, never used twice for a workload.
    pub seq: u64,
    /// The name of its contents, in hexadecimal.
    pub id: String,
    /// The snapshot whose pages it shares and whose state it went on from.
    pub parent: Option<u64>,
    /// All that it descends from, itself included.
    pub line: Line,
    /// What its taker told. Tags are those of today.
    pub meta: Meta,
    /// What it added to the store.
    pub stored_bytes: u64,
    /// Not to be forgotten.
    pub pinned: bool,
    /// Whether it can be restored, as far as is known.
    pub state: SnapshotState,
}

impl Snapshot {
    /// Says whether it is worth trying to restore it.
    #[must_use]
    pub fn restorable(&self) -> bool {
        self.state != SnapshotState::Damaged
    }
}

/// Something that happened to a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: DateTime<Utc>,
    /// To which workload.
    pub workload: String,
    /// What.
    pub kind: EventKind,
    /// The snapshot concerned.
    pub seq: Option<u64>,
    /// Why, as a sentence's end.
    pub reason: String,
    /// More, as a JSON document.
    pub detail: Option<String>,
}

/// What is kept about a workload from one keeper to the next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Workload {
    /// Its name.
    pub name: String,
    /// What to run and how: the supervisor's own encoding.
    pub definition: Vec<u8>,
    /// The supervisor's word for what it is doing.
    pub state: String,
    /// How often it was started again.
    pub restarts: u64,
    /// How often it was restored.
    pub restores: u64,
    /// Its last exit status, 128+signal when killed.
    pub exit_code: Option<i32>,
    /// When it was last started or restored.
    pub started_at: Option<DateTime<Utc>>,
}
