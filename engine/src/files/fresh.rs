//! Before a start from nothing: what the earlier run has made goes, so that a program that makes
//! its files finds none.
//!
//! What it held before that run, of a file that was there already, nobody has kept: such files are
//! left as they are, and named.
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::record::{Entry, EntryKind, Files};
use super::rollback::{RollBack, Summary};
use super::scan::scan;
use super::undone::Undone;
use crate::error::Result;

/// All that lies in these trees: to be remembered before a program starts that may replace it.
pub fn names(roots: &[PathBuf], spared: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    Ok(scan(roots, spared)?.entries.into_keys().collect())
}

/// Takes away what was born `since` then and is not among the `names` of before, of all that the
/// record speaks of: the files that the program wrote, and whatever lies in tracked trees. Also says
/// which files it may have written and were there before.
pub fn remove_born_since(
    files: &Files,
    since: SystemTime,
    names: &BTreeSet<PathBuf>,
    how: &RollBack,
) -> Result<(Summary, Vec<PathBuf>)> {
    let roots: Vec<_> =
        files.tracked.iter().map(|root| PathBuf::from(OsStr::from_bytes(root))).collect();
    let mut paths: Vec<PathBuf> = scan(&roots, &how.spared)?.entries.into_keys().collect();
    let written = |entry: &&Entry| entry.kind() == EntryKind::Regular && !entry.read_only;
    let regular = files.entries.iter().filter(written);
    paths.extend(regular.map(|entry| entry.path().to_owned()));
    // Ascending: what lies in a directory goes with it.
    paths.sort();
    paths.dedup();
    let mut undone = Undone::new(how.undone.clone());
    let (mut summary, mut left) = (Summary::default(), Vec::new());
    for path in paths {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        let spared = how.spared.iter().any(|spared| path.starts_with(spared));
        if how.held.contains(&path) {
            summary.held.push(path);
        } else if !spared
            && !names.contains(&path)
            && meta.created().is_ok_and(|born| born >= since)
        {
            undone.take(&path)?;
            summary.changed.push(path);
        } else if meta.is_file() && meta.modified().is_ok_and(|changed| changed >= since) {
            left.push(path);
        }
    }
    undone.forget_older()?;
    summary.undone = undone.folder().map(Path::to_owned);
    Ok((summary, left))
}

#[cfg(test)]
mod tests {
    use super::super::record::Entry;
    use super::*;

    #[test]
    fn what_was_born_since_goes_and_what_was_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("tracked")).unwrap();
        for old in ["tracked/old", "old"] {
            fs::write(path(old), "old").unwrap();
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        let since = SystemTime::now();
        std::thread::sleep(std::time::Duration::from_millis(50));
        let before = names(&[path("tracked")], &[]).unwrap();
        fs::remove_file(path("tracked/old")).unwrap();
        fs::write(path("tracked/old"), "replaced").unwrap();
        fs::create_dir(path("tracked/made")).unwrap();
        for new in ["tracked/new", "tracked/made/new", "new", "stranger"] {
            fs::write(path(new), "new").unwrap();
        }
        fs::write(path("old"), "written").unwrap();
        let entry = |name: &str| {
            let meta = fs::symlink_metadata(path(name)).unwrap();
            Entry::of(&path(name), &meta)
        };
        let files = Files {
            entries: vec![entry("new"), entry("old")],
            tracked: vec![path("tracked").into_os_string().into_encoded_bytes()],
        };
        let how = RollBack { undone: path("undone/1"), ..RollBack::default() };
        let (summary, left) = remove_born_since(&files, since, &before, &how).unwrap();
        assert_eq!(summary.changed, [path("new"), path("tracked/made"), path("tracked/new")]);
        assert_eq!(left, [path("old"), path("tracked/old")]);
        assert!(path("tracked/old").exists() && path("stranger").exists());
        assert!(!path("new").exists() && !path("tracked/made").exists());
        let kept = path("undone/1").join(path("tracked/made/new").strip_prefix("/").unwrap());
        assert_eq!(fs::read(kept).unwrap(), b"new");
    }
}
