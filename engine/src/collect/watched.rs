//! Descriptors of regular files whose rows the kernel shows all at once ([`crate::census::slots`]): whose row is as
//! it was when it was looked at closely is as it was, and nothing more is asked of it.
//!
//! A row tells of the open file and its inode, not of its name. Names change with the inode's time of change, but
//! for those of directories above, and for what is mounted over them. So each directory is asked once whether its
//! path still leads to it, and the kernel whether anything has been mounted. Open files are not held meanwhile: one
//! that is closed, and opened anew, may have the very same row, but then there is nothing else to tell of it.
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::fcntl::{AtFlags, OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat, stat};

use super::familiar::One;
use crate::census::slots::{Look, Shown, Slot, Slots, is_plain};
use crate::inventory::Pid;

/// For fewer it is not worth preparing: that takes some milliseconds, if not of the pause.
pub(super) const MANY: usize = 64;

/// Of all processes that have many.
#[derive(Debug)]
pub(super) struct Watched {
    tables: BTreeMap<Pid, Table>,
    mounts: Mounts,
    folders: Vec<Folder>,
}

/// Of one process.
#[derive(Debug)]
struct Table {
    /// For the pause.
    look: Look,
    /// By ascending numbers.
    known: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    number: RawFd,
    one: Rc<One>,
    shown: Shown,
    folder: usize,
}

/// A directory, and which it was.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    inode: (u64, u64),
}

/// A descriptor in the pause, and its open file, if that is as it was.
pub(super) type Recognised<'a> = (Slot, Option<&'a Rc<One>>);

impl Watched {
    /// Watches those of these descriptors that can be, of processes that have so `many`. Mounts were the same from before they were
    /// looked at.
    pub(super) fn of(
        descriptors: &BTreeMap<(Pid, RawFd), Rc<One>>,
        many: usize,
        mounts: Option<Mounts>,
    ) -> Option<Self> {
        let mounts = mounts.filter(|_| descriptors.len() >= many)?;
        let (slots, mut folders) = (Slots::prepare()?, Folders::default());
        let mut tables = BTreeMap::new();
        let mut all = descriptors.iter().peekable();
        while let Some(((pid, _), _)) = all.peek().copied() {
            let of_one = std::iter::from_fn(|| all.next_if(|((of, _), _)| of == pid));
            let ones: Vec<_> = of_one.map(|((_, number), one)| (*number, one)).collect();
            if ones.len() >= many {
                tables.extend(Table::of(&slots, *pid, ones, &mut folders).map(|one| (*pid, one)));
            }
        }
        let watched = Self { tables, mounts, folders: folders.all };
        watched.all().for_each(|one| one.let_go());
        Some(watched)
    }

    /// Their open files.
    pub(super) fn all(&self) -> impl Iterator<Item = &Rc<One>> {
        self.tables.values().flat_map(|table| table.known.iter().map(|known| &known.one))
    }

    /// In the pause: all descriptors of a process. `None`: they are to be asked for one by one.
    #[tracing::instrument(level = "trace", skip_all)]
    pub(super) fn recognise(&self, pid: Pid) -> Option<Vec<Recognised<'_>>> {
        let table = self.tables.get(&pid)?;
        if !self.mounts.are_the_same() {
            return None;
        }
        let slots = table.look.take()?;
        let mut stands = vec![None; self.folders.len()];
        let mut known = table.known.iter().peekable();
        let mut recognise = |slot: Slot| {
            while known.next_if(|one| one.number < slot.number).is_some() {}
            let same = known.next_if(|one| one.number == slot.number && one.shown == slot.shown);
            let one = same.filter(|one| {
                let stands = stands.get_mut(one.folder);
                stands.is_some_and(|it| *it.get_or_insert_with(|| self.stands(one.folder)))
            });
            (slot, one.map(|one| &one.one))
        };
        Some(slots.into_iter().map(&mut recognise).collect())
    }

    fn stands(&self, folder: usize) -> bool {
        let folder = self.folders.get(folder);
        folder.is_some_and(|one| stat(&one.path).is_ok_and(|now| inode(&now) == one.inode))
    }
}

impl Table {
    fn of(
        slots: &Slots,
        pid: Pid,
        ones: Vec<(RawFd, &Rc<One>)>,
        folders: &mut Folders,
    ) -> Option<Self> {
        let [now, look] = slots.of(pid, ones.len())?;
        let rows: BTreeMap<_, _> =
            now.take()?.into_iter().map(|slot| (slot.number, slot)).collect();
        let known = |(number, one): (RawFd, &Rc<One>)| {
            let shown = rows.get(&number)?.shown;
            let plain = is_plain(one.evidence.filesystem) && one.is_told_by(&shown);
            let folder = if plain { folders.of(one)? } else { return None };
            // Of more than one name the row would not tell by which it is open.
            (one.stat.st_nlink == 1).then(|| Known { number, one: Rc::clone(one), shown, folder })
        };
        Some(Self { look, known: ones.into_iter().filter_map(known).collect() })
    }
}

/// Directories, each once.
#[derive(Default)]
struct Folders {
    all: Vec<Folder>,
    known: BTreeMap<PathBuf, (usize, OwnedFd)>,
}

impl Folders {
    /// The directory in which an inode has the name that it was opened by.
    fn of(&mut self, one: &One) -> Option<usize> {
        let path = Path::new(&one.evidence.link);
        let (parent, name) = (path.parent()?, path.file_name()?);
        if !self.known.contains_key(parent) {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let folder = open(parent, flags, Mode::empty()).ok()?;
            let (path, inode) = (parent.to_owned(), inode(&fstat(&folder).ok()?));
            self.known.insert(parent.to_owned(), (self.all.len(), folder));
            self.all.push(Folder { path, inode });
        }
        let (at, folder) = self.known.get(parent)?;
        let there = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
        (inode(&there) == inode(&one.stat)).then_some(*at)
    }
}

fn inode(stat: &FileStat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Tells whether anything has been mounted or unmounted since (`mounts_poll()` in the kernel's
/// `fs/proc_namespace.c`).
#[derive(Debug)]
pub(super) struct Mounts(File);

impl Mounts {
    pub(super) fn now() -> Option<Self> {
        File::open("/proc/thread-self/mounts").ok().map(Self)
    }

    fn are_the_same(&self) -> bool {
        let mut polled = [PollFd::new(self.0.as_fd(), PollFlags::POLLPRI)];
        poll(&mut polled, PollTimeout::ZERO) == Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::mount::{MsFlags, mount, umount};
    use nix::sched::{CloneFlags, unshare};

    #[test]
    fn whatever_is_mounted_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let none: Option<&str> = None;
        let place = folder.path();
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).unwrap();
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let before = Mounts::now().unwrap();
        assert!(before.are_the_same());
        mount(Some(place), place, none, MsFlags::MS_BIND, none).unwrap();
        assert!(!before.are_the_same());
        let before = Mounts::now().unwrap();
        umount(place).unwrap();
        assert!(!before.are_the_same() && Mounts::now().unwrap().are_the_same());
    }
}
