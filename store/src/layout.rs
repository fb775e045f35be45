//! Where everything lies in a store, and how files come into being: whole, or not at all.
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

use crate::api::Options;
use crate::error::{Error, Result, io_error};

/// Version of everything a store holds.
pub(crate) const VERSION: u32 = 1;
/// First bytes of the file that says so.
const FORMAT: &str = "snapd store, version ";

/// A store: one directory.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
    catalog: bool,
}

/// A lock on the whole store, shared or not.
pub(crate) type Lock = Flock<File>;

impl Store {
    /// Opens the store in `dir`, made if there is none.
    pub fn create(dir: &Path, options: Options) -> Result<Self> {
        make_dir(dir)?;
        let store = Self { dir: dir.to_owned(), catalog: options.catalog };
        if !options.trust {
            owned_by_us(dir)?;
        }
        store.check_version()?;
        make_dir(&store.packs())?;
        make_dir(&store.manifests())?;
        Ok(store)
    }

    /// Opens one that must be there.
    pub fn open(dir: &Path, options: Options) -> Result<Self> {
        if !dir.join("format").exists() {
            return Err(Error::missing(dir, "a store"));
        }
        Self::create(dir, options)
    }

    pub(crate) fn keeps_catalog(&self) -> bool {
        self.catalog
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn packs(&self) -> PathBuf {
        self.dir.join("packs")
    }

    pub(crate) fn manifests(&self) -> PathBuf {
        self.dir.join("manifests")
    }

    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.manifests().join(name)
    }

    pub(crate) fn manifest(&self, name: &str, seq: u64) -> PathBuf {
        self.folder(name).join(format!("{seq}.manifest"))
    }

    /// Numbers of a workload's snapshots, ascending: as many as there are manifests.
    pub fn numbers(&self, name: &str) -> Result<Vec<u64>> {
        let mut numbers: Vec<u64> = listed(&self.folder(name))?
            .iter()
            .filter_map(|file| file.strip_suffix(".manifest")?.parse().ok())
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Names of all workloads that have, or had, snapshots.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = listed(&self.manifests())?;
        names.sort();
        Ok(names)
    }

    /// Holds off pruning while chunks are read or referred to.
    pub(crate) fn share(&self) -> Result<Lock> {
        let path = self.dir.join("lock");
        match Flock::lock(lock_file(&path)?, FlockArg::LockShared) {
            Ok(lock) => Ok(lock),
            Err((_, errno)) => Err(io_error("lock", &path)(errno.into())),
        }
    }

    /// For pruning: `None` if anybody reads or writes.
    pub(crate) fn try_own(&self) -> Result<Option<Lock>> {
        try_lock(&self.dir.join("lock"))
    }

    /// Makes this process the one writer of a workload.
    pub(crate) fn own_workload(&self, name: &str) -> Result<Lock> {
        make_dir(&self.folder(name))?;
        let lock = try_lock(&self.folder(name).join("lock"))?;
        lock.ok_or_else(|| Error::Busy { what: format!("workload {name:?}") })
    }

    fn check_version(&self) -> Result<()> {
        let path = self.dir.join("format");
        let Ok(text) = fs::read_to_string(&path) else {
            return write_whole(&path, format!("{FORMAT}{VERSION}\n").as_bytes());
        };
        let found = text.strip_prefix(FORMAT).and_then(|rest| rest.trim().parse().ok());
        match found {
            Some(VERSION) => Ok(()),
            Some(found) => Err(Error::Newer { path, found, known: VERSION }),
            None => Err(Error::damaged(&path, 0, "this is no store of ours")),
        }
    }
}

/// Makes a directory for us alone.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(io_error("create", path))
}

fn owned_by_us(dir: &Path) -> Result<()> {
    let owner = fs::metadata(dir).map_err(io_error("stat", dir))?.uid();
    let us = geteuid().as_raw();
    if owner == us { Ok(()) } else { Err(Error::Foreign { path: dir.to_owned(), owner }) }
}

fn lock_file(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(io_error("open", path))
}

fn try_lock(path: &Path) -> Result<Option<Lock>> {
    match Flock::lock(lock_file(path)?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EAGAIN)) => Ok(None),
        Err((_, errno)) => Err(io_error("lock", path)(errno.into())),
    }
}

/// Names in a directory; none if it is not there.
pub(crate) fn listed(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("read", dir)(error)),
    };
    let name = |entry: std::io::Result<fs::DirEntry>| {
        Ok(entry.map_err(io_error("read", dir))?.file_name().into_string().ok())
    };
    entries.map(name).filter_map(Result::transpose).collect()
}

/// A new private file.
pub(crate) fn create(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    options.open(path).map_err(io_error("create", path))
}

/// Writes beside, makes durable, renames into place, makes the name durable: the file is there whole
/// or not at all, whatever happens.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = path.with_extension("tmp");
    let mut file = create(&beside)?;
    file.write_all(bytes).map_err(io_error("write", &beside))?;
    file.sync_all().map_err(io_error("sync", &beside))?;
    into_place(&beside, path)
}

/// The last step of [`write_whole`], for a file that is durable already.
pub(crate) fn into_place(beside: &Path, path: &Path) -> Result<()> {
    fs::rename(beside, path).map_err(io_error("rename", path))?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Makes names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    let opened = File::open(dir).map_err(io_error("open", dir))?;
    opened.sync_all().map_err(io_error("sync", dir))
}
