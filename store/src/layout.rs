//! Where everything lies in a store, who may touch it, and which locks keep its users apart.
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

use crate::api::Options;
use crate::catalog::Waiting;
use crate::error::{Error, Result, io_error};
use crate::medium::{Medium, Watch, above};

/// Version of everything a store holds.
pub(crate) const VERSION: u32 = 2;
/// First bytes of the file that says so.
const FORMAT: &str = "snapd store, version ";
/// How the manifest of a snapshot ends, and that of one that is forgotten but was being read.
const MANIFEST: &str = "manifest";
const GONE: &str = "gone";

/// A store: one directory.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
    catalog: bool,
    trust: bool,
    medium: Medium,
    /// Directories that were made just now: their names are to be made durable by the first commit.
    made: Arc<[PathBuf]>,
    /// To the catalog, once it was opened.
    waiting: Waiting,
}

/// A lock of the kernel's; it ends with its holder.
pub(crate) type Lock = Flock<File>;

impl Store {
    /// Opens the store in `dir`, made if there is none.
    pub fn create(dir: &Path, options: Options) -> Result<Self> {
        Self::on(Medium::default(), dir, options)
    }

    /// Likewise, with somebody who hears of each step before it is taken.
    pub fn watched(dir: &Path, options: Options, watch: Watch) -> Result<Self> {
        Self::on(Medium::watched(watch), dir, options)
    }

    fn on(medium: Medium, dir: &Path, options: Options) -> Result<Self> {
        let mut made = medium.make_dir(dir)?;
        let parts = [dir.to_owned(), dir.join("packs"), dir.join("manifests")];
        for part in &parts {
            if !options.trust && part.exists() {
                ours_alone(part).or_else(|error| close_if_empty(part, error))?;
            }
        }
        check_version(&medium, dir)?;
        for part in &parts {
            made.extend(medium.make_dir(part)?);
        }
        let Options { catalog, trust } = options;
        let (dir, waiting) = (dir.to_owned(), Waiting::default());
        Ok(Self { dir, catalog, trust, medium, made: made.into(), waiting })
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

    pub(crate) fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    pub(crate) fn medium(&self) -> &Medium {
        &self.medium
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
        self.folder(name).join(format!("{seq}.{MANIFEST}"))
    }

    pub(crate) fn gone(&self, name: &str, seq: u64) -> PathBuf {
        self.folder(name).join(format!("{seq}.{GONE}"))
    }

    /// Numbers of a workload's snapshots, ascending: as many as there are manifests.
    pub fn numbers(&self, name: &str) -> Result<Vec<u64>> {
        self.numbered(name, MANIFEST)
    }

    /// Of those that were forgotten while somebody read them.
    pub(crate) fn gone_numbers(&self, name: &str) -> Result<Vec<u64>> {
        self.numbered(name, GONE)
    }

    fn numbered(&self, name: &str, end: &str) -> Result<Vec<u64>> {
        let number = |file: &String| file.strip_suffix(end)?.strip_suffix('.')?.parse().ok();
        let mut numbers: Vec<u64> = listed(&self.folder(name))?.iter().filter_map(number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Names of all workloads that have, or had, snapshots.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = listed(&self.manifests())?;
        names.sort();
        Ok(names)
    }

    /// A workload's directory, if it is to be believed.
    pub(crate) fn trusted_folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder(name);
        if !self.trust && folder.exists() {
            ours_alone(&folder)?;
        }
        Ok(folder)
    }

    /// Makes this process the one writer of a workload.
    pub(crate) fn own_workload(&self, name: &str) -> Result<Lock> {
        self.medium.make_dir(&self.trusted_folder(name)?)?;
        let lock = try_lock(&self.folder(name).join("lock"))?;
        lock.ok_or_else(|| Error::Busy { what: format!("workload {name:?}") })
    }

    /// Makes the names of everything above a workload's first manifest durable.
    pub(crate) fn sync_above(&self, workload: &str) -> Result<()> {
        let usual = [self.folder(workload), self.manifests(), self.dir.clone()];
        let mut dirs: Vec<&Path> = usual.iter().map(|path| above(path)).collect();
        for path in self.made.iter().map(|path| above(path)) {
            if !dirs.contains(&path) {
                dirs.push(path);
            }
        }
        dirs.iter().try_for_each(|dir| self.medium.sync_dir(dir))
    }
}

fn check_version(medium: &Medium, dir: &Path) -> Result<()> {
    let path = dir.join("format");
    let Some(text) = said(&path)? else {
        // Several may create it at once.
        let _alone = lock(&dir.join("lock.format"), FlockArg::LockExclusive)?;
        return match said(&path)? {
            Some(text) => understood(&path, &text),
            None => medium.write_whole(&path, format!("{FORMAT}{VERSION}\n").as_bytes()),
        };
    };
    understood(&path, &text)
}

fn said(path: &Path) -> Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

fn understood(path: &Path, text: &str) -> Result<()> {
    let found = text.strip_prefix(FORMAT).and_then(|rest| rest.trim().parse().ok());
    match found {
        Some(VERSION) => Ok(()),
        Some(found) => Err(Error::Newer { path: path.to_owned(), found, known: VERSION }),
        None => Err(Error::damaged(path, 0, "this is no store of ours")),
    }
}

/// An image can run any code: what others own or can write is not believed.
fn ours_alone(path: &Path) -> Result<()> {
    let meta = fs::metadata(path).map_err(io_error("stat", path))?;
    let owner = meta.uid();
    if owner != geteuid().as_raw() {
        return Err(Error::Foreign { path: path.to_owned(), owner });
    }
    let mode = meta.mode() & 0o7777;
    if mode & 0o022 == 0 { Ok(()) } else { Err(Error::Exposed { path: path.to_owned(), mode }) }
}

/// An empty directory of ours that others can write (as a shared place for images may be) is closed to
/// them before anything is put in. Closed first, and looked at then: nobody gets in between.
fn close_if_empty(path: &Path, error: Error) -> Result<()> {
    let Error::Exposed { mode, .. } = error else { return Err(error) };
    let set = |mode| {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(path, mode).map_err(io_error("chmod", path))
    };
    set(mode & !0o022)?;
    if fs::read_dir(path).map_err(io_error("read", path))?.next().is_none() {
        return Ok(());
    }
    set(mode)?;
    Err(error)
}

pub(crate) fn lock_file(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(io_error("open", path))
}

pub(crate) fn lock(path: &Path, how: FlockArg) -> Result<Lock> {
    lock_open(lock_file(path)?, path, how)
}

/// Waits for a lock on an open file.
pub(crate) fn lock_open(mut file: File, path: &Path, how: FlockArg) -> Result<Lock> {
    loop {
        match Flock::lock(file, how) {
            Ok(lock) => return Ok(lock),
            Err((again, Errno::EINTR)) => file = again,
            Err((_, errno)) => return Err(io_error("lock", path)(errno.into())),
        }
    }
}

/// Exclusively, or not at all.
pub(crate) fn try_lock(path: &Path) -> Result<Option<Lock>> {
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
