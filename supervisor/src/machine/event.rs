//! What happens to a keeper.
use std::time::Duration;

use policies::backoff::Limit;
use policies::restart::Restart;

use crate::definition::Definition;
use crate::wire::Ended;

/// What the machine has to know of a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `--every`.
    pub every: Option<Duration>,
    /// `--restart`.
    pub restart: Restart,
    /// `--restart-limit`.
    pub limit: Limit,
    /// `--keep-last`.
    pub keep_last: u64,
    /// It begins as a copy: from this other workload's snapshot.
    pub copy_of: Option<String>,
}

impl Options {
    /// Those of a definition.
    #[must_use]
    pub fn of(definition: &Definition) -> Self {
        let every = Duration::from_millis(definition.every_ms);
        let starts = usize::try_from(definition.restart_limit).unwrap_or(usize::MAX);
        let within = Duration::from_millis(definition.restart_window_ms);
        Self {
            every: (every > Duration::ZERO).then_some(every),
            restart: definition.restarts(),
            limit: Limit { starts, within },
            keep_last: definition.keep_last.into(),
            copy_of: None,
        }
    }
}

/// How a keeper begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// With a fresh start.
    Fresh,
    /// From this snapshot.
    Restore(u64),
    /// With a workload that is there already.
    Running(Met),
    /// With one that ended while it had no keeper.
    Recover {
        /// Its status, if its shim could still say it.
        ended: Option<Ended>,
        /// Somebody had asked for that.
        asked: bool,
        /// Since when it ran, about.
        lived: Duration,
    },
}

/// How a keeper found a workload that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Met {
    /// It is being brought back from this snapshot.
    pub restoring: Option<u64>,
    /// A worker of the earlier keeper is at it.
    pub at_work: bool,
    /// Somebody has asked for its end.
    pub asked: bool,
    /// Since when it runs, about.
    pub lived: Duration,
    /// When its last snapshot was taken.
    pub since_snapshot: Option<Duration>,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// First of all.
    Begin(Begin),
    /// The workload runs: started or restored.
    Up,
    /// It could not be started; the exit code for that.
    NotStarted {
        /// 127, 126 or 1.
        code: i32,
    },
    /// It could not be restored.
    NotRestored {
        /// Why.
        why: String,
    },
    /// Its first process ended.
    Ended(Ended),
    /// Nothing of it is left, its shim included.
    Gone,
    /// A snapshot is durable.
    Checkpointed {
        /// Its number.
        seq: u64,
    },
    /// A snapshot was given up.
    NotCheckpointed {
        /// Why.
        why: String,
    },
    /// A snapshot was removed.
    Forgotten {
        /// Its number.
        seq: u64,
    },
    /// Somebody typed `^C`, or sent the keeper a signal that ends programs.
    Interrupted,
    /// A request, by its number.
    Asked {
        /// For the answer.
        id: u64,
        /// What.
        ask: Ask,
    },
    /// Time passed.
    Tick,
}

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// A snapshot.
    Checkpoint {
        /// The workload ends once it is safe.
        stop: bool,
        /// Tags for it.
        tags: Vec<String>,
    },
    /// The end, by a signal, and by force after a while.
    Stop {
        /// Usually SIGTERM.
        signal: i32,
        /// Patience.
        timeout: Duration,
    },
    /// The end, by force.
    Kill,
    /// Back to a snapshot.
    Rollback {
        /// Its number.
        seq: u64,
    },
}
