//! What happens to a keeper.
use std::time::Duration;

use crate::definition::{Definition, Restart};
use crate::wire::Ended;

/// What the machine has to know of a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `--every`.
    pub every: Option<Duration>,
    /// `--restart`.
    pub restart: Restart,
    /// `--restart-limit`: so many...
    pub restart_limit: usize,
    /// ...in so long.
    pub restart_window: Duration,
    /// `--keep-last`.
    pub keep_last: usize,
}

impl Options {
    /// Those of a definition.
    #[must_use]
    pub fn of(definition: &Definition) -> Self {
        let every = Duration::from_millis(definition.every_ms);
        let big = |number| usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            every: (every > Duration::ZERO).then_some(every),
            restart: definition.restart(),
            restart_limit: big(definition.restart_limit),
            restart_window: Duration::from_millis(definition.restart_window_ms),
            keep_last: big(definition.keep_last),
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
    /// With a workload that runs already.
    Running,
    /// With one that ended while it had no keeper; its status, if its shim could still say it.
    Recover(Option<Ended>),
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
