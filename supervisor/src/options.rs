//! What commands were told, typed: the options of the command line, and what a command hears while
//! it waits.
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use policies::backoff::Limit;
use policies::restart::Restart;

/// `--files`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// Back to what they held, even those that others are writing: said in so many words.
    RollBack,
    /// Left as they are.
    Keep,
}

/// `--tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tcp {
    /// Established connections are an obstacle.
    #[default]
    Refuse,
    /// The program finds them reset after a restore.
    Close,
    /// They go on: not there yet.
    Keep,
}

/// `--pidns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pidns {
    /// Namespaces of its own.
    #[default]
    Private,
    /// Those of the caller.
    Host,
}

/// `--tty`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tty {
    /// A standard stream that is a terminal becomes one of ours.
    #[default]
    Auto,
    /// All three become one.
    Yes,
    /// None does.
    No,
}

/// `snapd run`.
#[derive(Debug, Clone)]
pub struct Run {
    /// `--name`; without one, from the command.
    pub name: Option<String>,
    /// Command and arguments.
    pub command: Vec<Vec<u8>>,
    /// `--detach`.
    pub detach: bool,
    /// `--fresh`: existing snapshots of the name are none of its business.
    pub fresh: bool,
    /// `--resume`: the newest snapshot if there is one, else a fresh start.
    pub resume: bool,
    /// `--every`.
    pub every: Option<Duration>,
    /// `--keep-last`.
    pub keep_last: u32,
    /// `--restart`.
    pub restart: Restart,
    /// `--restart-limit`.
    pub restart_limit: Limit,
    /// `--track`, as given: relative to the caller's directory.
    pub track: Vec<PathBuf>,
    /// `--files`, if given.
    pub files: Option<Files>,
    /// `--tcp`.
    pub tcp: Tcp,
    /// `--pidns`.
    pub pidns: Pidns,
    /// `--tty`.
    pub tty: Tty,
    /// `-e K=V`.
    pub env: Vec<Vec<u8>>,
    /// `--cwd`.
    pub cwd: Option<PathBuf>,
    /// `--user USER[:GROUP]`, as given.
    pub user: Option<String>,
    /// `--freeze-timeout`.
    pub freeze_timeout: Duration,
    /// `--json`: events on standard error.
    pub json: bool,
}

impl Run {
    /// What the options are if none is given.
    #[must_use]
    pub fn new(command: Vec<Vec<u8>>) -> Self {
        Self {
            name: None,
            command,
            detach: false,
            fresh: false,
            resume: false,
            every: None,
            keep_last: 10,
            restart: Restart::default(),
            restart_limit: Limit::default(),
            track: Vec::new(),
            files: None,
            tcp: Tcp::default(),
            pidns: Pidns::default(),
            tty: Tty::default(),
            env: Vec::new(),
            cwd: None,
            user: None,
            freeze_timeout: Duration::from_secs(1),
            json: false,
        }
    }
}

/// `snapd restore`; `snapd rollback` is one with `replace`.
#[derive(Debug, Clone)]
pub struct Restore {
    /// Whose snapshot.
    pub name: String,
    /// Its number; `None`: the newest of the current line.
    pub seq: Option<u64>,
    /// `--as`.
    pub as_new: Option<String>,
    /// `--detach`.
    pub detach: bool,
    /// `--verify`: all of it is read and checked first, and what came back before it runs on.
    pub verify: bool,
    /// `--accept-changed`.
    pub accept_changed: bool,
    /// `--replace`: ends it first if it runs.
    pub replace: bool,
    /// `--files`, if given; else as the workload was started.
    pub files: Option<Files>,
    /// `--tcp`, if given; else as the workload was started.
    pub tcp: Option<Tcp>,
    /// Events on standard error, for as long as it is in the foreground.
    pub json: bool,
}

impl Restore {
    /// What the options are if none is given.
    #[must_use]
    pub fn new(name: &str, seq: Option<u64>) -> Self {
        Self {
            name: name.to_owned(),
            seq,
            as_new: None,
            detach: false,
            verify: false,
            accept_changed: false,
            replace: false,
            files: None,
            tcp: None,
            json: false,
        }
    }
}

/// `snapd checkpoint`.
#[derive(Debug, Clone, Default)]
pub struct Checkpoint {
    /// `--tag`.
    pub tags: Vec<String>,
    /// `--stop`.
    pub stop: bool,
}

/// `snapd stop`.
#[derive(Debug, Clone, Copy)]
pub struct Stop {
    /// `--checkpoint`: a snapshot first; the end comes only if it is safe.
    pub checkpoint: bool,
    /// `--timeout`: then by force.
    pub timeout: Duration,
    /// `--signal`.
    pub signal: i32,
}

impl Default for Stop {
    fn default() -> Self {
        Self { checkpoint: false, timeout: Duration::from_secs(10), signal: 15 }
    }
}

/// What a command hears while it waits.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// How far a checkpoint or restore is; `of` is 0 while that is not known.
    Progress {
        /// Bytes done.
        done: u64,
        /// Of so many.
        of: u64,
    },
    /// The workload runs: for the first time, not again after a crash.
    Up(Up),
}

/// A workload that has come up.
#[derive(Debug, Clone, PartialEq)]
pub struct Up {
    /// Its name.
    pub name: String,
    /// The snapshot that it came from; `None`: it was started.
    pub seq: Option<u64>,
    /// Its first process, on the host.
    pub pid: i32,
    /// How long that took.
    pub took: Duration,
}

/// Who hears the news: called from any thread, and should not take long.
#[derive(Clone, Default)]
pub struct Ear(Option<Arc<dyn Fn(News) + Send + Sync>>);

impl Ear {
    /// Passes all news to `hear`.
    pub fn new(hear: impl Fn(News) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hear)))
    }

    pub(crate) fn tell(&self, news: News) {
        drop(self.0.as_ref().map(|hear| hear(news)));
    }
}

impl fmt::Debug for Ear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Ear(..)" } else { "Ear(deaf)" })
    }
}

/// How a command that starts or restores a workload is done.
#[derive(Debug, Clone, PartialEq)]
pub enum Done {
    /// It was in the foreground, and has ended with this status.
    Ended(i32),
    /// It runs on without us.
    Detached(Up),
}
