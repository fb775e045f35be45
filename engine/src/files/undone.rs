//! Where a roll back keeps what it overwrites or removes: nothing is lost by going back.
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A folder for one roll back, made when the first thing goes into it; inside, paths are as they
/// were from the root.
#[derive(Debug)]
pub struct Undone {
    folder: PathBuf,
    used: bool,
}

/// How many roll backs of a workload are kept.
const KEPT: usize = 3;

impl Undone {
    /// For the roll back of this `folder`, the last component of which tells when.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, used: false }
    }

    /// The folder, if anything lies in it.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.used.then_some(self.folder.as_path())
    }

    /// Copies a file that is about to be overwritten.
    pub(super) fn copy(&mut self, path: &Path) -> Result<()> {
        let place = self.place(path)?;
        fs::copy(path, &place).map(drop).map_err(Error::file("copy", path))
    }

    /// Moves away what is in the way, with everything inside it.
    pub(super) fn take(&mut self, path: &Path) -> Result<()> {
        let place = self.place(path)?;
        match fs::rename(path, &place) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                copy_tree(path, &place)?;
                remove(path)
            }
            Err(error) => Err(Error::file("rename", path)(error)),
        }
    }

    fn place(&mut self, path: &Path) -> Result<PathBuf> {
        let place = self.folder.join(path.strip_prefix("/").unwrap_or(path));
        let parent = place.parent().unwrap_or(&self.folder);
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(parent).map_err(Error::file("mkdir", parent))?;
        self.used = true;
        Ok(place)
    }

    /// Removes all but the last few folders beside this one.
    pub fn forget_older(&self) -> Result<()> {
        let Some(all) = self.folder.parent().filter(|all| all.is_dir()) else { return Ok(()) };
        let listed = fs::read_dir(all).map_err(Error::file("readdir", all))?;
        let mut folders: Vec<_> = listed.flatten().map(|entry| entry.path()).collect();
        folders.sort();
        let old = folders.len().saturating_sub(KEPT);
        folders.iter().take(old).try_for_each(|folder| remove(folder))
    }
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let meta = fs::symlink_metadata(from).map_err(Error::file("stat", from))?;
    if meta.is_symlink() {
        let target = fs::read_link(from).map_err(Error::file("readlink", from))?;
        return std::os::unix::fs::symlink(target, to).map_err(Error::file("symlink", to));
    }
    if meta.is_file() {
        return fs::copy(from, to).map(drop).map_err(Error::file("copy", from));
    }
    if !meta.is_dir() {
        return Ok(()); // A fifo has nothing to keep but its name.
    }
    DirBuilder::new().mode(0o700).create(to).map_err(Error::file("mkdir", to))?;
    for child in fs::read_dir(from).map_err(Error::file("readdir", from))? {
        let child = child.map_err(Error::file("readdir", from))?;
        copy_tree(&child.path(), &to.join(child.file_name()))?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    let is_dir = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
    let removed = if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(Error::file("unlink", path))
}
