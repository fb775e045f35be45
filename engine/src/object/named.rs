//! Things that have (or had) names in the file system: files, directories, FIFOs, devices.
//!
//! Each name by which the tree holds one is an end of it: one inode may be open by several names, and
//! `/proc/PID/fd` shows which. A name that lives is simply opened again. One that is gone is made for
//! a moment and removed as soon as it is open, so that the link reads "(deleted)" as before; what is
//! linked nowhere else is made anew, and what still is, is linked from there.
//!
//! Kernel: `d_path()` in `fs/d_path.c`, which puts ` (deleted)` behind names that are gone. Ends are
//! opened by `O_PATH`, which neither blocks nor rewinds, asks or counts anything.
use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open};
use nix::libc::{S_IFDIR, S_IFMT};
use nix::sys::stat::{FileStat, Mode, fstat, lstat};
use nix::unistd::{self, UnlinkatFlags, linkat, unlinkat};

use super::inode::Attributes;
use super::{Check, Collect, Ends, Evidence, Missing, View};
use crate::error::{Cause, Error, Obstacle, Result, kernel, kernel_io};
use crate::inventory::End;
use crate::procfs::link_of;

/// One name.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Name {
    /// The end of the object that was opened by it.
    #[prost(uint32, tag = "1")]
    end: u32,
    /// Any bytes, as the kernel takes them.
    #[prost(bytes = "vec", tag = "2")]
    path: Vec<u8>,
    /// It is gone: what the tree holds cannot be found by it any more.
    #[prost(bool, tag = "3")]
    gone: bool,
}

/// All names by which the tree holds one inode.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Named {
    #[prost(message, repeated, tag = "1")]
    names: Vec<Name>,
    /// A name that lives, if none of those does, but the inode is linked still.
    #[prost(bytes = "vec", tag = "2")]
    elsewhere: Vec<u8>,
    /// Of an inode that is linked nowhere, and has to be made.
    #[prost(message, optional, tag = "3")]
    attributes: Option<Attributes>,
}

/// Why a name cannot be saved; each kind has its own codes for them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Causes {
    /// Its path leads elsewhere: something is mounted over it, or it lies outside our root.
    pub(super) hidden: Cause,
    /// It is linked, but under a name that we did not find.
    pub(super) renamed: Cause,
    /// At a restore: its path leads nowhere.
    pub(super) missing: Cause,
}

/// The causes of one kind.
macro_rules! causes { ($kind:literal) => { super::named::Causes {
    hidden: crate::error::Cause {
        code: concat!($kind, ":hidden"),
        reason: "its path leads nowhere, or to something else that hides it",
        remedy: "take away what is mounted over it, or have the program close it",
    },
    renamed: crate::error::Cause {
        code: concat!($kind, ":renamed"),
        reason: "the name it was opened by is gone, and its other name was not found",
        remedy: "name the directory of its other link with --track, or have the program reopen it",
    },
    missing: crate::error::Cause {
        code: concat!($kind, ":missing"),
        reason: "it is no longer there, or is something else now",
        remedy: "put it back",
    },
} } }
pub(super) use causes;

/// The end that stands for the name a link tells. A hash, for claims see one open file at a time.
pub(super) fn end(seen: &Evidence) -> End {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(16_777_619);
    End(shown(seen.link.as_bytes()).iter().copied().fold(2_166_136_261, step))
}

/// What `d_path()` puts behind names that are gone.
pub(super) const GONE: &[u8] = b" (deleted)";

/// A link without the inode number that stands for the name of a file which never had one.
fn shown(link: &[u8]) -> Cow<'_, [u8]> {
    nameless(link).map_or(link.into(), |folder| [folder, b"/#", GONE].concat().into())
}

/// The folder of a file that never had a name.
fn nameless(link: &[u8]) -> Option<&[u8]> {
    let path = link.strip_suffix(GONE)?;
    let (folder, name) = path.split_at(path.iter().rposition(|byte| *byte == b'/')?);
    let number = name.strip_prefix(b"/#")?;
    (!number.is_empty() && number.iter().all(u8::is_ascii_digit)).then_some(folder)
}

impl Name {
    fn path(&self) -> &Path {
        path_of(&self.path)
    }
}

fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

impl Named {
    /// Finds out which names are gone.
    pub(super) fn names(with: &mut Collect<'_>, causes: &Causes) -> Result<Self> {
        let mut named = Self::default();
        for (end, fd) in with.files {
            if named.names.iter().any(|name| name.end == end.0) {
                continue;
            }
            let stat = fstat(fd).map_err(kernel("fstat"))?;
            let link = link_of(fd.as_fd())?;
            let link = shown(link.as_bytes());
            let Some((path, gone)) = place(&link, &stat) else {
                with.obstacle(&causes.hidden);
                continue;
            };
            let path = path.to_owned();
            named.names.push(Name { end: end.0, path, gone });
        }
        Ok(named)
    }

    /// Likewise, and what the inode is to be had by if all of them are.
    pub(super) fn collect(with: &mut Collect<'_>, causes: &Causes) -> Result<Self> {
        let mut named = Self::names(with, causes)?;
        if named.names.iter().any(|name| !name.gone) {
            return Ok(named);
        }
        let Some((_, fd)) = with.files.first() else { return Ok(named) };
        let stat = fstat(fd).map_err(kernel("fstat"))?;
        let directory = stat.st_mode & S_IFMT == S_IFDIR;
        if stat.st_nlink == 0 || directory {
            named.attributes = Some(Attributes::of(&stat));
        } else if let Some(path) = named.names.iter().find_map(|name| neighbour(name, &stat)) {
            named.elsewhere = path;
        } else if !named.names.is_empty() {
            with.obstacle(&causes.renamed);
        }
        Ok(named)
    }

    /// Whether it has to be made anew, contents and all.
    pub(super) fn is_gone(&self) -> bool {
        self.attributes.is_some()
    }

    /// Names that are gone.
    pub(super) fn gone(&self) -> impl Iterator<Item = &Path> {
        self.names.iter().filter(|name| name.gone).map(Name::path)
    }

    /// Names under which it can be found.
    pub(super) fn living(&self) -> impl Iterator<Item = &Path> {
        let own = self.names.iter().filter(|name| !name.gone).map(Name::path);
        own.chain(Some(self.elsewhere.as_slice()).filter(|path| !path.is_empty()).map(path_of))
    }

    /// The name that this end was opened by, as `/proc/PID/fd` shows it.
    pub(super) fn view(&self, end: End) -> View {
        let own = self.names.iter().find(|name| name.end == end.0);
        let deleted = |name: &Name| if name.gone { " (deleted)" } else { "" };
        let shown = |name: &Name| View::of(format!("{}{}", name.path().display(), deleted(name)));
        own.or(self.names.first()).map_or_else(View::default, shown)
    }

    /// Names that lead nowhere now, or to something of another type.
    pub(super) fn check(&self, kind: u32, with: Check<'_>, causes: &Causes) -> Vec<Missing> {
        let there = |path: &Path| lstat(path).is_ok_and(|stat| stat.st_mode & S_IFMT == kind);
        let lost = self.living().filter(|path| !with.is_put_back(path) && !there(path));
        let missing =
            |path: &Path| Missing { object: path.display().to_string(), cause: causes.missing };
        lost.map(missing).collect()
    }

    /// Opens every name, by `O_PATH`; those that are gone are there again for the moment.
    pub(super) fn open_all(&self, causes: &Causes) -> Result<Ends> {
        let open = |name: &Name| Ok((End(name.end), open_name(name.path(), causes)?));
        Ok(Ends::many(self.names.iter().map(open).collect::<Result<_>>()?))
    }

    /// Opens every name, by `O_PATH`. What has to be made is made by `make`, which must fail with
    /// `EEXIST` where there is something already, and then filled by `fill`.
    pub(super) fn build(
        &self,
        causes: &Causes,
        make: impl Fn(&Path) -> nix::Result<()>,
        fill: impl FnOnce(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<Ends> {
        let mut scaffold = Scaffold::default();
        let mut source = self.living().next().map(PathBuf::from);
        let mut ends = Vec::new();
        for name in &self.names {
            let path = name.path();
            let found =
                if name.gone { scaffold.raise(path, &mut source, &make)? } else { path.to_owned() };
            ends.push((End(name.end), open_name(&found, causes)?));
        }
        scaffold.remove()?;
        if let (true, Some((_, file))) = (self.is_gone(), ends.first()) {
            fill(file.as_fd())?;
            self.put_back(file.as_fd())?;
        }
        Ok(Ends::many(ends))
    }

    /// Likewise, of a file that has had no name yet, and so can be given one.
    pub(super) fn build_nameless(
        &self,
        flags: OFlag,
        fill: impl FnOnce(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<Ends> {
        let Some(name) = self.names.first() else { return Ok(Ends::many(Vec::new())) };
        let mut scaffold = Scaffold::default();
        let path = name.path();
        scaffold.directories_of(path)?;
        let (folder, mode) = (path.parent().unwrap_or(path), Mode::S_IRUSR | Mode::S_IWUSR);
        let made = open(folder, flags | OFlag::O_CLOEXEC, mode).map_err(kernel("open"))?;
        scaffold.remove()?;
        fill(made.as_fd())?;
        self.put_back(made.as_fd())?;
        Ok(Ends::many(vec![(End(name.end), made)]))
    }

    /// Owner, permissions and times of what was made anew.
    pub(super) fn put_back(&self, fd: BorrowedFd<'_>) -> Result<()> {
        self.attributes.as_ref().map_or(Ok(()), |attributes| attributes.apply(fd))
    }
}

/// What was made for a moment.
#[derive(Debug, Default)]
struct Scaffold {
    names: Vec<PathBuf>,
    directories: Vec<PathBuf>,
}

impl Scaffold {
    /// Makes `path`, and the directories it lies in, and says under which name: another one, if
    /// something has its own by now.
    fn raise(
        &mut self,
        path: &Path,
        source: &mut Option<PathBuf>,
        make: &impl Fn(&Path) -> nix::Result<()>,
    ) -> Result<PathBuf> {
        self.directories_of(path)?;
        for name in candidates(path) {
            let done = match source {
                Some(there) => linkat(AT_FDCWD, &**there, AT_FDCWD, &*name, AtFlags::empty()),
                None => make(&name),
            };
            match done {
                Ok(()) => {
                    self.names.push(name.clone());
                    source.get_or_insert_with(|| name.clone());
                    return Ok(name);
                }
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(Error::Kernel("link or make", errno)),
            }
        }
        Err(Error::Kernel("link or make", Errno::EEXIST))
    }

    /// Makes those directories that `path` lies in and that are gone.
    fn directories_of(&mut self, path: &Path) -> Result<()> {
        let mut above: Vec<_> = path.ancestors().skip(1).take_while(|up| !up.exists()).collect();
        while let Some(directory) = above.pop() {
            fs::create_dir(directory).map_err(kernel_io("mkdir"))?;
            self.directories.push(directory.to_owned());
        }
        Ok(())
    }

    /// Takes everything away again. What is open stays.
    fn remove(self) -> Result<()> {
        for name in self.names {
            let directory = lstat(&name).is_ok_and(|stat| stat.st_mode & S_IFMT == S_IFDIR);
            let how = if directory { UnlinkatFlags::RemoveDir } else { UnlinkatFlags::NoRemoveDir };
            unlinkat(AT_FDCWD, &name, how).map_err(kernel("unlinkat"))?;
        }
        for directory in self.directories.iter().rev() {
            fs::remove_dir(directory).map_err(kernel_io("rmdir"))?;
        }
        Ok(())
    }
}

/// The very name, and what comes close to it should that be taken.
fn candidates(path: &Path) -> impl Iterator<Item = PathBuf> {
    let more = (1..100).map(|n| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{n}"));
        name.into()
    });
    std::iter::once(path.to_owned()).chain(more)
}

fn open_name(path: &Path, causes: &Causes) -> Result<OwnedFd> {
    open_place(path).map_err(|errno| match errno {
        Errno::ENOENT | Errno::ENOTDIR => missing(path, causes),
        errno => Error::Kernel("open", errno),
    })
}

fn missing(path: &Path, causes: &Causes) -> Error {
    let object = path.display().to_string();
    Error::Refused(vec![Obstacle { pid: None, object, cause: causes.missing }])
}

/// Opens one of our descriptors once more: another open file of the same inode.
pub(super) fn reopen(fd: BorrowedFd<'_>, flags: OFlag) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    open(&*path, flags | OFlag::O_CLOEXEC, Mode::empty()).map_err(kernel("open"))
}

fn open_place(path: &Path) -> nix::Result<OwnedFd> {
    open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

/// The path of a link, and whether it leads nowhere any more; `None` if it leads astray. A file may
/// well be called `x (deleted)`.
fn place<'a>(link: &'a [u8], stat: &FileStat) -> Option<(&'a [u8], bool)> {
    if !link.starts_with(b"/") {
        return None;
    }
    let there = lstat(link);
    if there.is_ok_and(|there| same(&there, stat)) {
        return Some((link, false));
    }
    // Of what told of a process that has ended only the folder is marked so.
    let of_the_dead = there.is_err() && link.starts_with(b"/proc/");
    let path = link.strip_suffix(GONE).or(of_the_dead.then_some(link));
    path.map(|path| (path, true))
}

fn same(one: &FileStat, other: &FileStat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

/// Another link of the same inode, in the directory of a name that is gone.
fn neighbour(name: &Name, stat: &FileStat) -> Option<Vec<u8>> {
    let entries = fs::read_dir(name.path().parent()?).ok()?;
    let mut links = entries.flatten().filter(|entry| entry.ino() == stat.st_ino);
    let found = links.find(|entry| {
        entry.metadata().is_ok_and(|meta| (meta.dev(), meta.ino()) == (stat.st_dev, stat.st_ino))
    })?;
    Some(found.path().into_os_string().into_vec())
}

/// `mkdir`, for directories that are gone.
pub(super) fn make_directory(path: &Path) -> nix::Result<()> {
    unistd::mkdir(path, Mode::S_IRWXU)
}
