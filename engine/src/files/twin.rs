//! Large files that are written all the time: each gets a twin, which shares its blocks until one of them is
//! written (xfs, btrfs), and is read once the tree runs.
//!
//! A twin has no name: nothing is left of it, whatever becomes of us. It is made while the program runs, bit by
//! bit, since the program cannot write the file meanwhile: that takes 10 µs for each extent on xfs, 45 on btrfs,
//! and a file that has had twins has many (6.18; 11,500 of 1 GiB after six snapshots). In the pause it catches up:
//! what is dirty is written back (60 µs a page over a loop device), and only where the file lies elsewhere than
//! its twin ([`super::shared`], 2 to 3 µs for each extent) it is shared anew. How long that takes is found out by
//! doing it, right before: if longer than reading the file, it is read. cachestat(2) cannot tell: it counts
//! folios, and said that 4,096 pages were dirty where 16 had been written.
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::libc;
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, FsType, XFS_SUPER_MAGIC, fstatfs};
use nix::sys::statvfs::fstatvfs;
use nix::time::{ClockId, clock_gettime};

use super::contents;
use super::record::Inode;
use super::shared::elsewhere;
use crate::error::{Result, kernel};
use crate::image::{Contents, ImageSink};
use crate::inventory::FileId;
use crate::sys::{extents, reflink};

/// Smaller files are read: that takes a millisecond.
const LEAST: u64 = 4 << 20;
/// How fast files are read from the page cache and named, by two threads.
const READ_PER_SECOND: u64 = 4 << 30;
/// So much of it is shared at a time.
const BIT: u64 = 64 << 20;
/// Of a file system that much stays free, whatever is written: 1/20.
const RESERVE: u64 = 20;

/// Files that are yet to be read, as they were in the pause.
#[derive(Debug, Default)]
pub struct Twins(Vec<Twin>);

#[derive(Debug)]
struct Twin {
    id: FileId,
    size: u64,
    file: File,
}

impl Twins {
    /// Has the sink read them.
    pub fn write(self, sink: &mut dyn ImageSink) -> Result<()> {
        for Twin { id, size, file } in self.0 {
            contents::give_once(file, size, Contents::File(id), sink)?;
        }
        Ok(sink.settle()?)
    }

    pub(super) fn add(&mut self, id: FileId, size: u64, file: File) {
        self.0.push(Twin { id, size, file });
    }
}

/// A twin that lags behind its file, while the program runs.
#[derive(Debug)]
pub(super) struct Ahead {
    pub(super) inode: Inode,
    pub(super) size: u64,
    file: File,
    twin: File,
}

impl Ahead {
    /// `None`: there can be none, or reading the file takes no longer. There are others, of so many `bytes`.
    pub(super) fn of(path: &Path, bytes: u64) -> Option<Self> {
        const THOSE: [FsType; 2] = [XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC];
        // Whatever stands there by now.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
        let meta = file.metadata().ok().filter(|meta| meta.is_file() && meta.len() >= LEAST)?;
        fstatfs(&file).ok().filter(|fs| THOSE.contains(&fs.filesystem_type()))?;
        let size = meta.len();
        has_room(&file, bytes + size).ok().filter(|has| *has)?;
        reflink::write_back(file.as_fd()).ok()?;
        let twin = folders(path).find_map(|folder| twin_in(&folder, &file).ok())?;
        let ahead = Self { inode: (meta.dev(), meta.ino()), size, file, twin };
        let mut took = ahead.time_of_catching_up().ok()?;
        if !pays(took, size) {
            // Somebody else may just have had the processor, or the disk.
            took = ahead.time_of_catching_up().ok()?;
        }
        tracing::trace!(?path, ?took, "a twin ahead");
        pays(took, size).then_some(ahead)
    }

    fn time_of_catching_up(&self) -> Result<Duration> {
        let began = now();
        self.catch_up()?;
        Ok(now().saturating_sub(began))
    }

    /// Makes the twin hold what the file does. If that is written meanwhile, nearly so.
    pub(super) fn catch_up(&self) -> Result<()> {
        let size = self.file.metadata()?.len();
        if self.twin.metadata()?.len() != size {
            self.twin.set_len(size)?;
        }
        let of = |one: &File| extents::of(one.as_fd()).map_err(kernel("ioctl(FS_IOC_FIEMAP)"));
        let ranges = elsewhere(&of(&self.file)?, &of(&self.twin)?);
        // What lies behind the end is nobody's.
        for (at, end) in ranges.into_iter().take_while(|(at, _)| *at < size) {
            let len = if end < size { end - at } else { 0 };
            share(&self.file, &self.twin, at, len)?;
        }
        Ok(())
    }

    pub(super) fn into_twin(self) -> File {
        self.twin
    }
}

fn share(file: &File, twin: &File, at: u64, len: u64) -> Result<()> {
    let shared = reflink::share_range(file.as_fd(), twin.as_fd(), at, len);
    shared.map_err(kernel("ioctl(FICLONERANGE)"))
}

fn pays(took: Duration, bytes: u64) -> bool {
    bytes >= LEAST && took < Duration::from_micros(bytes / (READ_PER_SECOND / 1_000_000))
}

/// Where a twin may be made: at the top of the file system, and beside the file. Somebody may watch folders
/// by inotify, and sees files without a name too: hardly there at the top, where not everybody may make any.
fn folders(path: &Path) -> impl Iterator<Item = PathBuf> {
    let device = |path: &Path| fs::metadata(path).ok().map(|meta| meta.dev());
    let own = device(path);
    let beside = path.parent().map(Path::to_owned);
    let above = path.ancestors().skip(1).take_while(|folder| device(folder) == own).last();
    let top = above.map(Path::to_owned).filter(|top| Some(top) != beside.as_ref());
    top.into_iter().chain(beside)
}

fn twin_in(folder: &Path, file: &File) -> Result<File> {
    let flags = libc::O_TMPFILE | libc::O_EXCL;
    let mut private = OpenOptions::new();
    let twin = private.read(true).write(true).mode(0o600).custom_flags(flags).open(folder)?;
    let size = file.metadata()?.len();
    twin.set_len(size)?;
    let mut at = 0;
    while at + BIT < size {
        share(file, &twin, at, BIT)?;
        at += BIT;
    }
    share(file, &twin, at, 0)?;
    Ok(twin)
}

/// As long as there is a twin, the program needs room to write what it could do without any before.
fn has_room(file: &File, bytes: u64) -> Result<bool> {
    let space = fstatvfs(file).map_err(kernel("fstatvfs"))?;
    let unit = space.fragment_size();
    let (free, all) = (space.blocks_available() * unit, space.blocks() * unit);
    Ok(free >= bytes + all / RESERVE)
}

fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Measured of 1 GiB each: xfs with 250 dirty pages, and a btrfs in 20,000 extents.
    #[test]
    fn a_twin_is_made_where_that_is_faster_than_reading() {
        let ms = Duration::from_millis;
        assert!(pays(ms(15), 1 << 30) && !pays(ms(900), 1 << 30));
        assert!(pays(Duration::from_micros(100), 8 << 20) && !pays(ms(2), 8 << 20));
        assert!(!pays(Duration::ZERO, LEAST - 1));
    }

    #[test]
    fn twins_are_made_at_the_top_of_the_file_system_before_beside_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(&path, "b").unwrap();
        let folders: Vec<_> = folders(&path).collect();
        let [top, beside] = folders.as_slice() else { panic!("{folders:?}") };
        assert_eq!(*beside, dir.path().join("a"));
        assert!(dir.path().starts_with(top) && top != beside);
    }
}
