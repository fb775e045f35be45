//! What lies in a tree of directories right now.
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::record::{Entry, EntryKind};
use crate::error::{Error, Result};

/// What is found, and what is deliberately not looked into.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    /// By path.
    pub(super) entries: BTreeMap<PathBuf, Entry>,
    /// Mount points of other file systems.
    pub(super) skipped: Vec<PathBuf>,
}

/// Everything in the trees of `roots`, themselves included; nothing in `spared` ones. What vanishes
/// meanwhile is not there.
pub(super) fn scan(roots: &[PathBuf], spared: &[PathBuf]) -> Result<Scanned> {
    let mut found = Scanned::default();
    for root in roots {
        let Some(entry) = look(root)? else { continue };
        let device = entry.stamp.device;
        let mut waiting = vec![entry];
        while let Some(entry) = waiting.pop() {
            let path = entry.path().to_owned();
            if spared.contains(&path) {
                continue;
            }
            if entry.stamp.device != device {
                found.skipped.push(path);
                continue;
            }
            if entry.kind() == EntryKind::Directory {
                waiting.extend(children(&path)?);
            }
            found.entries.insert(path, entry);
        }
    }
    Ok(found)
}

/// What is at `path`, if anything.
pub(super) fn look(path: &Path) -> Result<Option<Entry>> {
    let gone =
        |error: &io::Error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if gone(&error) => return Ok(None),
        Err(error) => return Err(Error::file("stat", path)(error)),
    };
    let mut entry = Entry::of(path, &meta);
    if meta.is_symlink() {
        let target = fs::read_link(path).map_err(Error::file("readlink", path))?;
        entry.target = target.into_os_string().into_vec();
    }
    Ok(Some(entry))
}

fn children(path: &Path) -> Result<Vec<Entry>> {
    let listed = match fs::read_dir(path) {
        Ok(listed) => listed,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file("readdir", path)(error)),
    };
    let mut found = Vec::new();
    for child in listed {
        let child = child.map_err(Error::file("readdir", path))?;
        found.extend(look(&child.path())?);
    }
    Ok(found)
}
