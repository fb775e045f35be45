//! What commands want to know of snapshots, whether or not their workload runs.
mod contents;

use std::path::Path;

use policies::name::{Reference, Which};
use store::{Snapshot, Store};

pub use self::contents::Contents;
use crate::book::Book;
use crate::bridge::no_image;
use crate::error::{Error, Result};
use crate::home::Home;

/// The store of a state directory; `None` as long as nothing was ever saved there.
pub fn store(home: &Home) -> Result<Option<Store>> {
    if !home.dir().join("format").exists() {
        return Ok(None);
    }
    Ok(Some(Store::open(home.dir(), store::Options::default())?))
}

/// Snapshots of one workload or all, oldest first. That there is no such workload is an error, that
/// it has none is not.
pub fn snapshots(home: &Home, name: Option<&str>) -> Result<Vec<Snapshot>> {
    let store = store(home)?;
    let all = store.as_ref().map(|store| store.snapshots(name)).transpose()?.unwrap_or_default();
    if let Some(name) = name.filter(|_| all.is_empty()) {
        Book::open(home)?.entry(name)?;
    }
    Ok(all)
}

/// One snapshot, as listed.
pub fn snapshot(home: &Home, name: &str, seq: u64) -> Result<Snapshot> {
    let all = snapshots(home, Some(name))?;
    let found = all.iter().find(|one| one.seq == seq);
    found.cloned().ok_or_else(|| absent(name, seq, &all))
}

/// The one snapshot of an image that `dump` made.
pub fn image(dir: &Path) -> Result<Snapshot> {
    let options = store::Options { catalog: false, ..store::Options::default() };
    let newest = Store::open(dir, options)?.snapshots(None)?.pop();
    newest.ok_or_else(|| no_image(dir))
}

/// The number of the snapshot that is meant.
pub fn resolve(home: &Home, wanted: &Reference) -> Result<u64> {
    let name = wanted.name.as_str();
    let all = snapshots(home, Some(name))?;
    if all.is_empty() {
        return Err(Error::Missing(format!("snapshot of workload {name:?}")));
    }
    let line = store(home)?.map(|store| store.restorable(name)).transpose()?.unwrap_or_default();
    match wanted.which {
        Which::Number(seq) if !all.iter().any(|one| one.seq == seq) => Err(absent(name, seq, &all)),
        which => which.resolve(&line).ok_or_else(|| {
            let text = format!("snapshot {wanted}: its current line has {} restorable", line.len());
            Error::Missing(text)
        }),
    }
}

fn absent(name: &str, seq: u64, all: &[Snapshot]) -> Error {
    let newest = all.last().map(|one| format!(" (the newest is {name}@{})", one.seq));
    Error::Missing(format!("snapshot {name}@{seq}{}", newest.unwrap_or_default()))
}
