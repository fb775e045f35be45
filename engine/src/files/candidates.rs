//! Which files the tree is writing: open for writing, or mapped shared and writable.
//!
//! Asked twice: of the running tree, roughly and from /proc, to read ahead; and of the inventory of
//! the frozen one, which is the truth.
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::fcntl::OFlag;

use crate::inventory::{Backing, Inventory, OpenFileId, Pid};
use crate::object;

/// A named regular file that may be written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// As the tree sees it.
    pub path: PathBuf,
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// Writes through a shared mapping are possible: its times do not tell them all.
    pub mapped: bool,
}

/// Of a frozen tree.
#[must_use]
pub fn of_inventory(inventory: &Inventory) -> BTreeSet<Candidate> {
    let mapped = inventory.spaces.values().flat_map(|space| &space.vmas).filter_map(|vma| {
        let Backing::File { open_file, .. } = vma.backing else { return None };
        (vma.shared && vma.flags.iter().any(|flag| flag == "mw")).then_some(open_file)
    });
    let mapped: BTreeSet<OpenFileId> = mapped.collect();
    let written = inventory.open_files.iter().filter(|(id, file)| {
        let flags = OFlag::from_bits_retain(file.flags());
        mapped.contains(id)
            || (flags & OFlag::O_ACCMODE != OFlag::O_RDONLY && !flags.contains(OFlag::O_PATH))
    });
    let candidate = |(id, file): (&OpenFileId, &crate::open_file::OpenFile)| {
        let record = inventory.objects.get(&file.refers_to().0)?;
        let (path, device, inode) = object::named_regular_file(record)?;
        Some(Candidate { path, device, inode, mapped: mapped.contains(id) })
    };
    written.filter_map(candidate).collect()
}

/// Of these processes and all their descendants, while they run: a guess, for reading ahead.
#[must_use]
pub fn of_running(roots: &[Pid]) -> BTreeSet<Candidate> {
    let mut found = BTreeSet::new();
    let mut waiting: Vec<i32> = roots.iter().map(|pid| pid.0).collect();
    while let Some(pid) = waiting.pop() {
        found.extend(open_for_writing(pid));
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            waiting.extend(
                children.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()),
            );
        }
    }
    found
}

/// What one process has open for writing, as far as it can be told. `/proc/PID/fd` links show in
/// their own mode how a file is open.
fn open_for_writing(pid: i32) -> impl Iterator<Item = Candidate> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    links.filter_map(|link| {
        let writable = fs::symlink_metadata(link.path()).ok()?.mode() & 0o200 != 0;
        let path = writable.then(|| fs::read_link(link.path()).ok())??;
        let meta = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
        let same = fs::metadata(link.path()).ok()?;
        let one = (meta.dev(), meta.ino()) == (same.dev(), same.ino());
        one.then(|| Candidate { path, device: meta.dev(), inode: meta.ino(), mapped: false })
    })
}
