//! What has to be done to a directory tree to make it what it was. Pure.
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::record::{Entry, EntryKind, Files};

/// One thing to do; the order of the list is the order of doing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the record")]
pub enum Action {
    /// It was not there, or was something else: moved beside.
    Remove { path: PathBuf },
    /// A directory is gone.
    MakeDirectory { path: PathBuf },
    /// Likewise.
    MakeSymlink { path: PathBuf, target: PathBuf },
    /// Likewise.
    MakeFifo { path: PathBuf },
    /// A file is gone: an empty one, to be filled.
    MakeFile { path: PathBuf },
    /// Another name of a file.
    Link { from: PathBuf, path: PathBuf },
    /// The contents may differ: compared, and rewritten in place where they do.
    Rewrite { path: PathBuf, id: u32, size: u64 },
    /// Owner, mode and times may differ.
    Attributes { path: PathBuf },
}

/// What turns `now` into `then`. Outside tracked trees nothing is removed.
#[must_use]
pub fn plan(then: &Files, now: &BTreeMap<PathBuf, Entry>) -> Vec<Action> {
    let concerns = |one: &&Entry| !one.read_only || !now.contains_key(one.path());
    let wanted = then.entries.iter().filter(concerns).map(|one| (one.path(), one));
    let wanted: BTreeMap<_, _> = wanted.collect();
    let mut actions = removals(then, now, &wanted);
    let mut done = BTreeSet::new();
    // Ascending, so that directories come before what lies in them.
    for (&path, &entry) in &wanted {
        let seen = now.get(path);
        if entry.kind() == EntryKind::Regular {
            if done.insert(entry.id) {
                actions.extend(file(entry, then, now));
            }
        } else if seen.is_none_or(|seen| !same_thing(entry, seen)) {
            actions.extend(make(entry));
        }
    }
    // Descending: touching what lies in a directory moves the directory's own times.
    actions.extend(
        wanted
            .iter()
            .rev()
            .filter(|(path, entry)| attributes_differ(entry, now.get(**path)))
            .map(|(path, _)| Action::Attributes { path: path.to_path_buf() }),
    );
    actions
}

/// What stands where something else, or nothing, was; what lies inside goes with it.
fn removals(
    then: &Files,
    now: &BTreeMap<PathBuf, Entry>,
    wanted: &BTreeMap<&Path, &Entry>,
) -> Vec<Action> {
    let mut removed: Vec<Action> = Vec::new();
    let mut last: Option<&Path> = None;
    for (path, seen) in now {
        if last.is_some_and(|last| path.starts_with(last)) {
            continue;
        }
        let goes = match wanted.get(path.as_path()) {
            Some(entry) => !same_thing(entry, seen),
            None => then.tracks(path) && seen.kind() != EntryKind::Other,
        };
        if goes {
            removed.push(Action::Remove { path: path.clone() });
            last = Some(path);
        }
    }
    removed
}

/// Whether what is there can become what was there without making it anew.
fn same_thing(then: &Entry, now: &Entry) -> bool {
    then.kind == now.kind && then.target == now.target
}

fn make(entry: &Entry) -> Option<Action> {
    let path = entry.path().to_owned();
    match entry.kind() {
        EntryKind::Directory => Some(Action::MakeDirectory { path }),
        EntryKind::Symlink => {
            let target: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(&entry.target);
            Some(Action::MakeSymlink { path, target: target.into() })
        }
        EntryKind::Fifo => Some(Action::MakeFifo { path }),
        EntryKind::Regular | EntryKind::Other => None,
    }
}

/// All names of one file. Kept in place if they are all names of one file still, and it has as many
/// names as it had; made anew otherwise, or writing to one would change a stranger.
fn file(entry: &Entry, then: &Files, now: &BTreeMap<PathBuf, Entry>) -> Vec<Action> {
    let same_file = |other: &&Entry| other.kind() == EntryKind::Regular && other.id == entry.id;
    let names: Vec<_> = then.entries.iter().filter(same_file).map(Entry::path).collect();
    let seen: Vec<_> = names.iter().map(|name| now.get(*name)).collect();
    let [Some(first), ..] = seen.as_slice() else { return anew(entry, &names, now) };
    let one = seen.iter().all(|other| {
        other.is_some_and(|other| {
            other.stamp.inode == first.stamp.inode && other.kind() == EntryKind::Regular
        })
    });
    if !one || first.nlink != entry.nlink {
        return anew(entry, &names, now);
    }
    if entry.settled && first.stamp == entry.stamp {
        return Vec::new();
    }
    vec![rewrite(entry, entry.path())]
}

fn anew(entry: &Entry, names: &[&Path], now: &BTreeMap<PathBuf, Entry>) -> Vec<Action> {
    let Some((first, others)) = names.split_first() else { return Vec::new() };
    // What is no regular file has been removed already.
    let still = |name: &&&Path| now.get(**name).is_some_and(|e| e.kind() == EntryKind::Regular);
    let mut actions: Vec<_> = names
        .iter()
        .filter(still)
        .map(|name| Action::Remove { path: name.to_path_buf() })
        .collect();
    actions.push(Action::MakeFile { path: first.to_path_buf() });
    actions.push(rewrite(entry, first));
    actions.extend(
        others
            .iter()
            .map(|other| Action::Link { from: first.to_path_buf(), path: other.to_path_buf() }),
    );
    actions
}

fn rewrite(entry: &Entry, path: &Path) -> Action {
    Action::Rewrite { path: path.to_owned(), id: entry.id, size: entry.stamp.size }
}

/// Contents that are rewritten move the times too, so those are always put back with them.
fn attributes_differ(then: &Entry, now: Option<&Entry>) -> bool {
    let Some(now) = now else { return then.kind() != EntryKind::Other };
    let settled = then.settled || then.kind() != EntryKind::Regular;
    let attributes = |one: &Entry| (one.mode, one.uid, one.gid, one.stamp.mtime, one.nlink);
    then.kind() != EntryKind::Other
        && (!settled || attributes(then) != attributes(now) || then.stamp != now.stamp)
}
