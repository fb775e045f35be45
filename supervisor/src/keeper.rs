//! The keeper of one workload: performs what the [`crate::machine`] decides, and tells it how that
//! went.
//!
//! `snapd run` in the foreground is one; `snapd __keeper` is a detached one. It may be killed at any
//! time: the workload runs on with its shim, and the next keeper takes over from the catalog and the
//! shim. One thread with tokio; other threads only to wait for what cannot be polled (the terminal,
//! a worker). At most one keeper a workload: `DIR/run/NAME.keeper` is locked.
mod control;
mod link;
mod shell;
mod signals;
mod terminal;

use std::path::PathBuf;

use crate::book::{Book, Entry, boot, now_ms};
use crate::definition::Definition;
use crate::error::{Error, Result, cannot};
use crate::home::{Home, check_name};
pub use crate::machine::Begin;

/// What a keeper is to do.
#[derive(Debug, Clone)]
pub struct Charge {
    /// Where.
    pub home: Home,
    /// Of what.
    pub definition: Definition,
    /// How it begins.
    pub begin: Begin,
    /// Whether our standard streams are the workload's, and `^C` is meant for it.
    pub foreground: bool,
    /// Print events on standard error, as JSON.
    pub json: bool,
    /// This program, for shims and workers.
    pub program: PathBuf,
}

/// Keeps it until it ends; returns its last status.
pub fn run(charge: Charge) -> Result<i32> {
    let name = charge.definition.name.clone();
    check_name(&name)?;
    let busy = || Error::Busy(format!("workload {name:?} runs already"));
    let _keeper = charge.home.try_lock(&name, "keeper")?.ok_or_else(busy)?;
    if charge.begin != Begin::Running && charge.home.is_locked(&name, "lock")? {
        return Err(busy());
    }
    let book = Book::open(&charge.home)?;
    let entry = match book.entry(&name) {
        Ok(entry) => Entry { definition: charge.definition.clone(), boot: boot(), ..entry },
        Err(_) => Entry {
            definition: charge.definition.clone(),
            started_at_ms: now_ms(),
            boot: boot(),
            ..Entry::default()
        },
    };
    book.put(&entry)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(cannot("start the keeper"))?;
    let code = runtime.block_on(async { shell::Shell::new(charge, book, entry)?.run().await });
    runtime.shutdown_background();
    code
}
