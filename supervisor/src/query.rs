//! What commands want to know of snapshots, whether or not their workload runs.
mod contents;

use std::collections::BTreeMap;
use std::path::Path;

use policies::name::{Reference, Which};
use store::{Snapshot, Store};

pub use self::contents::Contents;
use crate::book::Book;
use crate::bridge::no_image;
use crate::error::{Error, Result, cannot};
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

/// For each process of a workload, by the number that it sees itself, the one on the host. `None` if
/// it does not run.
pub fn host_pids(home: &Home, name: &str) -> Result<Option<BTreeMap<i32, i32>>> {
    let first = crate::client::status(home, name)?.live.map(|live| live.pid);
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(theirs) = first.and_then(|pid| namespace(&pid.to_string())) else { return Ok(None) };
    let all = std::fs::read_dir("/proc").map_err(cannot("list processes"))?;
    let numbers = all.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let inside = numbers.filter(|pid| namespace(pid).as_ref() == Some(&theirs));
    let pair = |pid: String| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        Some((line.split_whitespace().last()?.parse().ok()?, pid.parse().ok()?))
    };
    Ok(Some(inside.filter_map(pair).collect()))
}
