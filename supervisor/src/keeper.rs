//! The keeper of one workload: performs what the [`crate::machine`] decides, and tells it how that
//! went.
//!
//! `snapd run` in the foreground is one; `snapd __keeper` is a detached one. It may be killed at any
//! time: the workload runs on with its shim, and the next keeper takes over from the catalog and the
//! shim. One thread with tokio; other threads only to wait for what cannot be polled (the terminal,
//! a worker). At most one keeper a workload: `DIR/run/NAME.keeper` is locked.
mod anew;
mod before;
mod control;
mod effects;
mod hear;
mod link;
mod report;
mod shell;
mod signals;
mod standard;
mod tell;
mod terminal;

use std::path::PathBuf;

use self::before::Before;
use crate::book::{Book, Entry, boot, now_ms};
use crate::definition::Definition;
use crate::error::{Error, Result, cannot};
use crate::home::{Home, check_name};
use crate::options::Ear;
use crate::wire::Ended;

pub(crate) use self::link::outer_pid;
pub use self::report::Report;

/// How a keeper begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It starts the workload afresh.
    Fresh,
    /// From this snapshot.
    Restore(u64),
    /// The workload is there already.
    TakeOver,
    /// It was, and ended without a keeper.
    Recover,
}

/// How to bring a snapshot back, beside what the definition says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bringing {
    /// `--as`: whose snapshot it is.
    pub from: Option<String>,
    /// `--accept-changed`.
    pub accept_changed: bool,
    /// `--verify`.
    pub verify: bool,
}

/// What a keeper is to do.
#[derive(Debug, Clone)]
pub struct Charge {
    /// Where.
    pub home: Home,
    /// Of what.
    pub definition: Definition,
    /// How it begins.
    pub start: Start,
    /// And how, if that is by a snapshot.
    pub bring: Bringing,
    /// Whether our standard streams are the workload's, and `^C` is meant for it.
    pub foreground: bool,
    /// Print events on standard error, as JSON.
    pub json: bool,
    /// Who hears of the start.
    pub ear: Ear,
    /// The command that started us, and waits.
    pub report: Option<Report>,
    /// This program, for shims and workers.
    pub program: PathBuf,
}

impl Charge {
    /// One in the background.
    #[must_use]
    pub fn new(home: &Home, definition: Definition, start: Start, ear: &Ear) -> Self {
        Self {
            home: home.clone(),
            definition,
            start,
            bring: Bringing::default(),
            foreground: false,
            json: false,
            ear: ear.clone(),
            report: None,
            program: PathBuf::from("/proc/self/exe"),
        }
    }

    /// The snapshot that it begins with.
    #[must_use]
    pub fn seq(&self) -> Option<u64> {
        match self.start {
            Start::Restore(seq) => Some(seq),
            _ => None,
        }
    }

    /// For the hidden command's arguments.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = match self.start {
            Start::Fresh => vec!["--fresh".to_owned()],
            Start::Restore(seq) => vec!["--restore".to_owned(), seq.to_string()],
            Start::TakeOver => vec!["--take-over".to_owned()],
            Start::Recover => vec!["--recover".to_owned()],
        };
        if let Some(from) = &self.bring.from {
            words.extend(["--from".to_owned(), from.clone()]);
        }
        if self.bring.accept_changed {
            words.push("--accept-changed".to_owned());
        }
        if self.bring.verify {
            words.push("--verify".to_owned());
        }
        words
    }
}

/// Keeps it until it ends; returns its last status.
pub fn run(mut charge: Charge) -> Result<i32> {
    let name = charge.definition.name.clone();
    check_name(&name)?;
    let busy = || Error::Busy(format!("workload {name:?} runs already"));
    let _keeper = charge.home.try_lock(&name, "keeper")?.ok_or_else(busy)?;
    let book = Book::open(&charge.home)?;
    let before = Before::of(&book, &name)?;
    let there = charge.home.is_locked(&name, "lock")?;
    let alive = before.entry.as_ref().is_some_and(Entry::is_alive);
    charge.start = match charge.start {
        Start::TakeOver | Start::Recover if there => Start::TakeOver,
        Start::TakeOver | Start::Recover if alive => Start::Recover,
        // It has ended properly since somebody thought that it needed us.
        Start::TakeOver | Start::Recover => return Err(Error::Ended(name)),
        _ if there => return Err(busy()),
        start => start,
    };
    let anew = matches!(charge.start, Start::Fresh | Start::Restore(_));
    let definition = charge.definition.clone();
    let mut entry = match before.entry.clone() {
        Some(entry) => Entry { definition, boot: boot(), ..entry },
        None => Entry { definition, boot: boot(), started_at_ms: now_ms(), ..Entry::default() },
    };
    if anew {
        entry.asked = false;
        "starting".clone_into(&mut entry.state);
    }
    if charge.start == Start::Fresh {
        entry.begun_at_ms = now_ms();
    }
    book.put(&entry)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(cannot("start the keeper"))?;
    let before = anew.then_some(before);
    let shell = async { shell::Shell::new(charge, book, entry, before)?.run().await };
    let code = runtime.block_on(shell);
    runtime.shutdown_background();
    code
}

/// What the shim wrote down, if it lived to see it.
fn how_it_ended(home: &Home, name: &str) -> Option<Ended> {
    Ended::read(&std::fs::read(home.run(name, "exit")).ok()?)
}
