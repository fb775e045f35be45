//! Performs what [`plan`](super::plan()) says.
//!
//! Safe to stop at any moment and do again: each step looks at what is there, the snapshot stays,
//! and what was overwritten is kept beside before it is.
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::mkfifo;

use super::plan::{Action, plan};
use super::record::{Entry, EntryKind, Files};
use super::rewrite::rewrite;
use super::scan::{look, scan};
use super::undone::Undone;
use crate::error::{Error, Result, kernel};
use crate::image::ImageSource;
use crate::inventory::FileId;

/// How to roll back.
#[derive(Debug, Clone, Default)]
pub struct RollBack {
    /// Where what is overwritten or removed is kept.
    pub undone: PathBuf,
    /// Files that processes outside the tree are writing: left alone, and said.
    pub held: BTreeSet<PathBuf>,
    /// Never touched: our own state directory.
    pub spared: Vec<PathBuf>,
}

/// What a roll back did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// What was overwritten, removed, made or renamed back.
    pub changed: Vec<PathBuf>,
    /// Left alone because others are writing them.
    pub held: Vec<PathBuf>,
    /// Where what was overwritten or removed lies now.
    pub undone: Option<PathBuf>,
}

/// Whether rolling back would change anything.
pub fn would_change(files: &Files, how: &RollBack) -> Result<bool> {
    let now = look_at(files, how)?;
    Ok(plan(files, &now).iter().any(|action| !how.held.contains(action.path())))
}

/// Puts the files of a snapshot back.
pub fn roll_back(files: &Files, image: &dyn ImageSource, how: &RollBack) -> Result<Summary> {
    let now = look_at(files, how)?;
    let mut work = Work {
        entries: files.entries.iter().map(|entry| (entry.path(), entry)).collect(),
        image,
        undone: Undone::new(how.undone.clone()),
        changed: BTreeSet::new(),
    };
    let mut held = BTreeSet::new();
    for action in plan(files, &now) {
        match how.held.get(action.path()) {
            Some(path) => drop(held.insert(path.clone())),
            None => work.perform(&action)?,
        }
    }
    work.undone.forget_older()?;
    Ok(Summary {
        changed: work.changed.into_iter().collect(),
        held: held.into_iter().collect(),
        undone: work.undone.folder().map(Path::to_owned),
    })
}

/// What is there now, of all that the record speaks of.
fn look_at(files: &Files, how: &RollBack) -> Result<BTreeMap<PathBuf, Entry>> {
    let path = |bytes: &Vec<u8>| PathBuf::from(std::ffi::OsStr::from_bytes(bytes));
    let roots: Vec<_> = files.tracked.iter().map(path).collect();
    let mut now = scan(&roots, &how.spared)?.entries;
    for entry in &files.entries {
        if let Some(seen) = look(entry.path())? {
            now.insert(entry.path().to_owned(), seen);
        }
    }
    Ok(now)
}

impl Action {
    fn path(&self) -> &Path {
        match self {
            Self::Remove { path }
            | Self::MakeDirectory { path }
            | Self::MakeSymlink { path, .. }
            | Self::MakeFifo { path }
            | Self::MakeFile { path }
            | Self::Link { path, .. }
            | Self::Rewrite { path, .. }
            | Self::Attributes { path } => path,
        }
    }
}

struct Work<'a> {
    entries: BTreeMap<&'a Path, &'a Entry>,
    image: &'a dyn ImageSource,
    undone: Undone,
    changed: BTreeSet<PathBuf>,
}

impl Work<'_> {
    fn perform(&mut self, action: &Action) -> Result<()> {
        let path = action.path();
        match action {
            Action::Remove { .. } => self.undone.take(path)?,
            Action::MakeDirectory { .. } => {
                fs::create_dir_all(path).map_err(Error::file("mkdir", path))?;
            }
            Action::MakeSymlink { target, .. } => {
                symlink(target, path).map_err(Error::file("symlink", path))?;
            }
            Action::MakeFifo { .. } => mkfifo(path, Mode::S_IRUSR).map_err(kernel("mkfifo"))?,
            Action::MakeFile { .. } => make_file(path)?,
            Action::Link { from, .. } => {
                fs::hard_link(from, path).map_err(Error::file("link", path))?;
            }
            Action::Rewrite { id, size, .. } => {
                if !self.rewrite(path, FileId(*id), *size)? {
                    return Ok(());
                }
            }
            Action::Attributes { .. } => return self.attributes(path),
        }
        self.changed.insert(path.to_owned());
        Ok(())
    }

    fn rewrite(&mut self, path: &Path, id: FileId, size: u64) -> Result<bool> {
        let file = open_whatever_its_mode(path)?;
        let made_now = self.changed.contains(path);
        let undone = &mut self.undone;
        rewrite(&file, id, size, self.image, &mut || {
            if made_now { Ok(()) } else { undone.copy(path) }
        })
    }

    fn attributes(&self, path: &Path) -> Result<()> {
        let Some(entry) = self.entries.get(path) else { return Ok(()) };
        let meta = fs::symlink_metadata(path).map_err(Error::file("stat", path))?;
        if (meta.uid(), meta.gid()) != (entry.uid, entry.gid) {
            lchown(path, Some(entry.uid), Some(entry.gid)).map_err(Error::file("chown", path))?;
        }
        if entry.kind() != EntryKind::Symlink {
            let mode = fs::Permissions::from_mode(entry.mode);
            fs::set_permissions(path, mode).map_err(Error::file("chmod", path))?;
        }
        let (atime, mtime) = (timespec(entry.atime), timespec(entry.stamp.mtime));
        let flags = UtimensatFlags::NoFollowSymlink;
        utimensat(AT_FDCWD, path, &atime, &mtime, flags).map_err(kernel("utimensat"))
    }
}

fn timespec(nanos: i64) -> TimeSpec {
    TimeSpec::new(nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000))
}

/// Private until its own mode is set; folders that are gone come back with it.
fn make_file(path: &Path) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(Error::file("mkdir", folder))?;
    }
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map(drop).map_err(Error::file("create", path))
}

/// Without following links, and not to be stopped by a fifo that stands there now.
fn open_whatever_its_mode(path: &Path) -> Result<File> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
    opened.map_err(Error::file("open", path))
}
