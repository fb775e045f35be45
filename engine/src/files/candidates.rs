//! Which files the tree is writing: open for writing, or mapped shared and writable. And which it
//! only reads, but has had since it began: its own working files, such as a compiler hands on to
//! an assembler, which are likely to be gone later.
//!
//! Asked twice: of the running tree, roughly and from /proc, to read ahead; and of the inventory of
//! the frozen one, which is the truth.
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::libc::PROT_WRITE;
use nix::sys::statfs::statfs;
use nix::time::{ClockId, clock_gettime};

use crate::family;
use crate::inventory::{Backing, Inventory, ObjectId, OpenFileId, Pid};
use crate::lock;
use crate::object;
use crate::open_file::OpenFile;
use crate::procfs;
use crate::procfs::smaps::{self, Area};
use crate::procfs::stat::Stat;

/// A named regular file that may be written. Ordered by inodes: to compare paths takes far longer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// As the tree sees it.
    pub path: PathBuf,
    /// Writes through a shared mapping are possible: its times do not tell them all.
    pub mapped: bool,
    /// It is only read: to be put back if it is gone, and left alone otherwise.
    pub read_only: bool,
}

/// Longer files that are only read are not kept.
const READ_BYTES_MAX: u64 = 64 << 20;
/// So much older than the tree may be what was put back for it at a restore.
const SLACK_SECONDS: i64 = 10;

/// Of a frozen tree, but for objects of which enough is `known`, ascending.
pub(super) fn of_inventory(inventory: &Inventory, known: &[ObjectId]) -> BTreeSet<Candidate> {
    let mapped = inventory.spaces.values().flat_map(|space| &space.vmas).filter_map(|vma| {
        let Backing::File { open_file, .. } = vma.backing else { return None };
        (vma.shared && vma.flags.iter().any(|flag| flag == "mw")).then_some(open_file)
    });
    let mapped: BTreeSet<OpenFileId> = mapped.collect();
    let written = |id: &OpenFileId, file: &OpenFile| mapped.contains(id) || file.may_write();
    let began = began(inventory.processes.keys());
    let candidate = |(id, file): (&OpenFileId, &OpenFile)| {
        let object = file.refers_to().0;
        if known.binary_search(&object).is_ok() {
            return None;
        }
        let record = inventory.objects.get(&object)?;
        let (path, device, inode) = object::named_regular_file(record)?;
        let read_only = !written(id, file);
        let one = Candidate { path, device, inode, mapped: mapped.contains(id), read_only };
        let own = || {
            let meta = fs::symlink_metadata(&one.path);
            meta.is_ok_and(|meta| began.is_some_and(|at| is_own(meta.ctime(), meta.len(), at)))
        };
        (!read_only || own()).then_some(one)
    };
    let all: BTreeSet<_> = inventory.open_files.iter().filter_map(candidate).collect();
    let written: BTreeSet<_> = all.iter().filter(|one| !one.read_only).map(inode).collect();
    all.into_iter().filter(|one| !one.read_only || !written.contains(&inode(one))).collect()
}

fn inode(candidate: &Candidate) -> (u64, u64) {
    (candidate.device, candidate.inode)
}

/// Whether a file that is only read has changed since the tree began, both in seconds of real time, and is not too
/// long to be kept.
pub(crate) fn is_own(changed: i64, len: u64, began: i64) -> bool {
    changed >= began - SLACK_SECONDS && len <= READ_BYTES_MAX
}

/// When the first of these processes began, in seconds of real time.
pub(crate) fn began<'a>(pids: impl Iterator<Item = &'a Pid>) -> Option<i64> {
    let started = pids.filter_map(|pid| {
        let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
        Stat::parse(&String::from_utf8_lossy(&text)).ok()?.started().ok()
    });
    // `USER_HZ`, which is 100 wherever we run (`include/asm-generic/param.h`).
    let since_boot = i64::try_from(started.min()? / 100).ok()?;
    let now = |clock| clock_gettime(clock).ok().map(|time| time.tv_sec());
    Some(now(ClockId::CLOCK_REALTIME)? - now(ClockId::CLOCK_BOOTTIME)? + since_boot)
}

/// Of these processes and all their descendants, while they run: a guess, for reading ahead.
#[must_use]
pub fn of_running(roots: &[Pid]) -> BTreeSet<Candidate> {
    let (mut found, mut leased) = (BTreeSet::new(), BTreeSet::new());
    for pid in family::of(roots) {
        for (one, lease) in open_for_writing(pid.0) {
            leased.extend(lease.then(|| inode(&one)));
            found.insert(one);
        }
        found.extend(mapped_for_writing(pid.0));
    }
    found.retain(|one| !leased.contains(&inode(one)));
    found
}

/// Whether opening the file would break a lease, and wait for its holder to give it up.
fn is_leased(pid: i32, fd: &OsStr) -> bool {
    let info = procfs::text(Path::new("/proc").join(format!("{pid}/fdinfo")).join(fd));
    info.is_ok_and(|text| lock::is_leased(&text))
}

/// What one process has open for writing, as far as it can be told, and whether it has a lease on it.
/// `/proc/PID/fd` links show in their own mode how a file is open.
fn open_for_writing(pid: i32) -> impl Iterator<Item = (Candidate, bool)> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    links.filter_map(move |link| {
        let writable = fs::symlink_metadata(link.path()).ok()?.mode() & 0o200 != 0;
        let path = writable.then(|| fs::read_link(link.path()).ok())??;
        let same = fs::metadata(link.path()).ok()?;
        let found = guess(path, false).filter(|one| inode(one) == (same.dev(), same.ino()))?;
        Some((found, is_leased(pid, &link.file_name())))
    })
}

/// And what it has mapped so that its writes go to a file. By the inode alone: a file's device is another in
/// `maps` than in a stat, on btrfs.
fn mapped_for_writing(pid: i32) -> impl Iterator<Item = Candidate> {
    let maps = procfs::text(format!("/proc/{pid}/maps")).unwrap_or_default();
    let areas = smaps::parse(&maps).unwrap_or_default();
    let written = |area: &&Area<'_>| area.shared && area.prot & PROT_WRITE != 0 && area.inode != 0;
    let files = areas.iter().filter(written).map(|area| (PathBuf::from(area.name), area.inode));
    let files: BTreeSet<_> = files.collect();
    files.into_iter().filter_map(|(path, inode)| guess(path, true).filter(|one| one.inode == inode))
}

fn guess(path: PathBuf, mapped: bool) -> Option<Candidate> {
    let meta = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file)?;
    let (device, inode) = (meta.dev(), meta.ino());
    let kept = object::keeps_files(device, statfs(&path).ok()?.filesystem_type().0);
    kept.then_some(Candidate { path, device, inode, mapped, read_only: false })
}
