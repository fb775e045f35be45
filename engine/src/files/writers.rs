//! Who else is writing the files of a snapshot: rolling back under their hands would be a lie.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::record::{EntryKind, Files};

/// Files of the record that are open for writing in some process that is not `ours`, with the first
/// such process. Sees as far as /proc does: to be called outside the workload's namespaces.
#[must_use]
pub fn outside_writers(files: &Files, ours: &BTreeSet<i32>) -> BTreeMap<PathBuf, i32> {
    let regular = files.entries.iter().filter(|entry| entry.kind() == EntryKind::Regular);
    // By what is there now: the one that was there may be gone.
    let wanted: BTreeMap<_, _> = regular
        .filter_map(|entry| {
            let meta = fs::metadata(entry.path()).ok()?;
            Some(((meta.dev(), meta.ino()), entry.path().to_owned()))
        })
        .collect();
    let mut found = BTreeMap::new();
    if wanted.is_empty() {
        return found;
    }
    for pid in processes().filter(|pid| !ours.contains(pid)) {
        for inode in written_by(pid) {
            if let Some(path) = wanted.get(&inode) {
                found.entry(path.clone()).or_insert(pid);
            }
        }
    }
    found
}

fn processes() -> impl Iterator<Item = i32> {
    let listed = fs::read_dir("/proc").into_iter().flatten().flatten();
    listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Inodes of what a process has open for writing; the link's own mode tells how it is open.
fn written_by(pid: i32) -> impl Iterator<Item = (u64, u64)> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    links.filter_map(|link| {
        let writable = fs::symlink_metadata(link.path()).ok()?.mode() & 0o200 != 0;
        let meta = writable.then(|| fs::metadata(link.path()).ok())??;
        Some((meta.dev(), meta.ino()))
    })
}
