//! What a keeper does.

/// Kinds of events in the catalog, in the words of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Started,
    Checkpointed,
    CheckpointFailed,
    Crashed,
    Restored,
    RestoreFailed,
    SteppedBack,
    StartedFresh,
    Backoff,
    Failed,
    Finished,
    Stopped,
    RolledBack,
    KeeperStarted,
    Note,
}

impl Kind {
    /// The stable word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Checkpointed => "checkpointed",
            Self::CheckpointFailed => "checkpoint-failed",
            Self::Crashed => "crashed",
            Self::Restored => "restored",
            Self::RestoreFailed => "restore-failed",
            Self::SteppedBack => "stepped-back",
            Self::StartedFresh => "started-fresh",
            Self::Backoff => "backoff",
            Self::Failed => "failed",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
            Self::RolledBack => "rolled-back",
            Self::KeeperStarted => "keeper-started",
            Self::Note => "note",
        }
    }
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Makes a shim and has it start the first process.
    StartFresh {
        /// What an earlier run has left behind goes first: it came to nothing.
        undo: bool,
    },
    /// Makes a shim and has a worker bring the tree back in it.
    Restore {
        /// The snapshot.
        seq: u64,
    },
    /// Has a worker take a snapshot.
    Checkpoint {
        /// Why.
        trigger: &'static str,
        /// Tags for it.
        tags: Vec<String>,
        /// The tree is killed once it is durable.
        stop: bool,
    },
    /// Removes what need not be kept.
    Retain {
        /// How many stay.
        keep_last: u64,
    },
    /// Sends the first process a signal.
    Signal {
        /// Which.
        number: i32,
    },
    /// Kills the whole tree, with its shim.
    Kill,
    /// Writes an event into the catalog.
    Record {
        /// What happened.
        kind: Kind,
        /// The snapshot concerned.
        seq: Option<u64>,
        /// Why.
        reason: String,
    },
    /// Answers a request.
    Answer {
        /// Which.
        id: u64,
        /// The snapshot concerned; or why not.
        result: Result<Option<u64>, String>,
    },
    /// The keeper's work is done.
    Exit {
        /// The workload's last status.
        code: i32,
    },
}

impl Action {
    pub(super) fn record(kind: Kind, seq: Option<u64>, reason: &str) -> Self {
        Self::Record { kind, seq, reason: reason.to_owned() }
    }

    pub(super) fn answer(id: u64, seq: Option<u64>) -> Self {
        Self::Answer { id, result: Ok(seq) }
    }

    pub(super) fn refuse(id: u64, why: &str) -> Self {
        Self::Answer { id, result: Err(why.to_owned()) }
    }
}
