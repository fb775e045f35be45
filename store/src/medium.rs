//! What a store does to its medium, step by step.
//!
//! Every change of a file or directory goes through here and is announced before it happens. Suites
//! listen: they kill the program there, or make the step fail as a full or broken disk would.
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::libc;
use nix::sys::uio::pwritev;

use crate::error::{Error, Result, io_error};

/// Hears of each step, by name and path, before it is taken; an error takes its place.
pub type Watch = Arc<dyn Fn(&'static str, &Path) -> io::Result<()> + Send + Sync>;

/// All steps that there are.
pub const STEPS: &[&str] = &[
    "store:make-directory",
    "store:create",
    "store:write",
    "store:sync",
    "store:rename",
    "store:remove",
    "store:sync-directory",
];

/// A disk, and who watches it.
#[derive(Clone, Default)]
pub(crate) struct Medium {
    watch: Option<Watch>,
}

impl std::fmt::Debug for Medium {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Medium").field("watched", &self.watch.is_some()).finish()
    }
}

impl Medium {
    pub(crate) fn watched(watch: Watch) -> Self {
        Self { watch: Some(watch) }
    }

    fn step(&self, name: &'static str, op: &'static str, path: &Path) -> Result<()> {
        match &self.watch {
            Some(watch) => watch(name, path).map_err(io_error(op, path)),
            None => Ok(()),
        }
    }

    /// Makes a directory for us alone, and those above it. Says which had to be made, the uppermost
    /// last: their names are not durable yet.
    pub(crate) fn make_dir(&self, path: &Path) -> Result<Vec<PathBuf>> {
        if path.is_dir() {
            return Ok(Vec::new());
        }
        self.step("store:make-directory", "create", path)?;
        let mut made = vec![path.to_owned()];
        loop {
            match DirBuilder::new().mode(0o700).create(path) {
                Ok(()) => return Ok(made),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
                    return Ok(made); // By somebody else, just now.
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && !above(path).is_dir() => {
                    made.extend(self.make_dir(above(path))?);
                }
                Err(error) => return Err(io_error("create", path)(error)),
            }
        }
    }

    /// A new private file.
    pub(crate) fn create(&self, path: &Path) -> Result<File> {
        self.step("store:create", "create", path)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        options.open(path).map_err(io_error("create", path))
    }

    /// Another way to a file of ours, past the page cache, if there is one.
    pub(crate) fn open_direct(path: &Path) -> Option<File> {
        OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path).ok()
    }

    /// Writes past the page cache; through it if the file system wants larger blocks for that.
    pub(crate) fn write_past_cache(
        &self,
        (direct, file): (&File, &File),
        path: &Path,
        bytes: &[u8],
        at: u64,
    ) -> Result<()> {
        match self.write_at(direct, path, &[bytes], at) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::InvalidInput => {
                self.write_at(file, path, &[bytes], at)
            }
            done => done,
        }
    }

    /// Writes all parts, one behind the other.
    pub(crate) fn write_at(
        &self,
        file: &File,
        path: &Path,
        parts: &[&[u8]],
        mut at: u64,
    ) -> Result<()> {
        let failed = io_error("write", path);
        self.step("store:write", "write", path)?;
        // IOV_MAX of `include/uapi/linux/uio.h` is 1,024.
        for some in parts.chunks(512) {
            let mut slices: Vec<_> = some.iter().map(|part| IoSlice::new(part)).collect();
            let mut left = slices.as_mut_slice();
            while left.iter().any(|slice| !slice.is_empty()) {
                let offset = i64::try_from(at)
                    .map_err(|_| Error::Misuse { what: "a file is too long".into() })?;
                let done = match pwritev(file, left, offset) {
                    Ok(0) => return Err(failed(io::ErrorKind::WriteZero.into())),
                    Ok(done) => done,
                    Err(nix::errno::Errno::EINTR) => 0,
                    Err(errno) => return Err(failed(errno.into())),
                };
                at += done as u64;
                IoSlice::advance_slices(&mut left, done);
            }
        }
        Ok(())
    }

    /// Has the kernel begin to write a range back, without waiting: the sync that follows finds
    /// little left to do. (The call promises less than it does; `mm/fadvise.c` starts write-back
    /// of what is dirty, and drops only what is clean.)
    pub(crate) fn hurry(file: &File, range: Range<u64>) {
        let len = range.end.saturating_sub(range.start);
        if let (Ok(at), Ok(len)) = (i64::try_from(range.start), i64::try_from(len)) {
            // A hint: where it fails nothing is lost but time.
            drop(posix_fadvise(file, at, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED));
        }
    }

    /// Makes a file's bytes and length durable. A failure is final: the kernel reports it once and
    /// then forgets that anything was dirty.
    pub(crate) fn sync(&self, file: &File, path: &Path) -> Result<()> {
        self.step("store:sync", "sync", path)?;
        file.sync_data().map_err(io_error("sync", path))
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.step("store:rename", "rename", to)?;
        fs::rename(from, to).map_err(io_error("rename", to))
    }

    /// Removes a file; it may be gone already.
    pub(crate) fn remove(&self, path: &Path) -> Result<()> {
        self.step("store:remove", "remove", path)?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove", path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Makes names in a directory durable.
    pub(crate) fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.step("store:sync-directory", "sync", dir)?;
        let opened = File::open(dir).map_err(io_error("open", dir))?;
        opened.sync_all().map_err(io_error("sync", dir))
    }

    /// Writes beside, makes durable, renames into place, makes the name durable: the file is there
    /// whole or not at all, whatever happens.
    pub(crate) fn write_whole(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let beside = path.with_extension("tmp");
        let file = self.create(&beside)?;
        let written = self.write_at(&file, &beside, &[bytes], 0);
        if let Err(error) = written.and_then(|()| self.sync(&file, &beside)) {
            drop(self.remove(&beside)); // A full disk has no room for it either.
            return Err(error);
        }
        self.rename(&beside, path)?;
        self.sync_dir(above(path))
    }
}

/// The directory that a path lies in.
pub(crate) fn above(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
