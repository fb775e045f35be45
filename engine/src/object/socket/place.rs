//! Names of Unix sockets, and where their files lie.
//!
//! A name is what bind(2) was told, resolved in the root and working directory of that moment: the
//! file is somewhere else for whoever looks from elsewhere, may be gone, or may belong to a socket
//! that this one was accepted from. So it is bound in a thread that has a root and a working
//! directory of its own; if there must be no file, inside a file system that only this thread sees.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc::AF_UNIX;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::fstat;

use super::super::Build;
use super::makers::Maker;
use super::through_proc;
use crate::error::{Error, Result, kernel, kernel_io};
use crate::procfs::link_of;
use crate::sys::net;

/// A name, and its file if that is its own and still there.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Name {
    /// `sun_path`: abstract names begin with a zero, paths do not end with one. Empty if unbound.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) path: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    pub(crate) file: Option<NameFile>,
}

/// The socket's file.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct NameFile {
    /// From the engine's root.
    #[prost(string, tag = "1")]
    at: String,
    #[prost(uint32, tag = "2")]
    mode: u32,
    #[prost(uint32, tag = "3")]
    uid: u32,
    #[prost(uint32, tag = "4")]
    gid: u32,
}

impl Name {
    /// Reads the name; `owned` tells whether a file would be this socket's own.
    pub(crate) fn of(fd: BorrowedFd<'_>, owned: bool) -> Result<Self> {
        let address = net::name(fd).map_err(kernel("getsockname"))?;
        let path = sun_path(&address);
        let filed = owned && path.first().is_some_and(|byte| *byte != 0);
        let file = if filed { NameFile::of(fd)? } else { None };
        Ok(Self { path, file })
    }

    /// Whether there is one.
    pub(crate) fn is_bound(&self) -> bool {
        !self.path.is_empty()
    }

    /// An abstract name.
    pub(crate) fn is_abstract(&self) -> bool {
        self.path.first() == Some(&0)
    }

    /// Gives the name to `fd`. With its file, if it has one; else nobody will find it.
    pub(crate) fn bind(&self, fd: BorrowedFd<'_>) -> Result<()> {
        let address = address(&self.path);
        match &self.file {
            _ if !self.is_bound() => Ok(()),
            _ if self.is_abstract() => net::bind(fd, &address).map_err(kernel("bind")),
            Some(file) => file.bind(fd, &self.path, &address),
            None => elsewhere(|| {
                let name = text(&self.path)?;
                unseen(name)?;
                net::bind(fd, &address).map_err(kernel("bind"))?;
                std::fs::remove_file(name).map_err(kernel_io("unlink"))
            }),
        }
    }
}

/// An address's `sun_path`, less the final zero of a path.
pub(crate) fn sun_path(address: &[u8]) -> Vec<u8> {
    let path = address.get(2..).unwrap_or_default();
    match path {
        [0, ..] => path.to_vec(),
        _ => path.split(|byte| *byte == 0).next().unwrap_or_default().to_vec(),
    }
}

/// `struct sockaddr_un` of exactly this length.
pub(crate) fn address(path: &[u8]) -> Vec<u8> {
    let family = u16::try_from(AF_UNIX).unwrap_or_default().to_ne_bytes();
    let end: &[u8] = if path.first().is_some_and(|byte| *byte != 0) { &[0] } else { &[] };
    [&family[..], path, end].concat()
}

fn text(path: &[u8]) -> Result<&Path> {
    let text = std::str::from_utf8(path);
    text.map(Path::new).map_err(|_| Error::Record("name of a socket".into(), None))
}

/// The file's own descriptor and path; `None` if it was deleted.
pub(crate) fn file_of(fd: BorrowedFd<'_>) -> Result<Option<(OwnedFd, String)>> {
    let file = match net::unix_file(fd) {
        Ok(file) => file,
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(Error::Kernel("ioctl", errno)),
    };
    let link = link_of(file.as_fd())?;
    Ok(Some((file, link.to_string_lossy().into_owned())))
}

/// Connects `fd` to the socket with this file, or with this name if it has none.
pub(crate) fn connect(
    with: &mut Build<'_>,
    maker: Option<&Maker>,
    fd: BorrowedFd<'_>,
    (file, name): (Option<(OwnedFd, String)>, &Name),
) -> Result<()> {
    match (maker, file) {
        (Some(maker), Some((file, _))) => maker.connect_to(with, fd, file.as_fd()),
        (Some(maker), None) => maker.connect(with, fd, address(&name.path)),
        (None, file) => {
            let own =
                |(file, _): &(OwnedFd, String)| address(through_proc(file.as_fd()).as_bytes());
            let to = file.as_ref().map_or_else(|| address(&name.path), own);
            net::connect(fd, &to).map_err(kernel("connect"))
        }
    }
}

impl NameFile {
    fn of(fd: BorrowedFd<'_>) -> Result<Option<Self>> {
        let Some((file, at)) = file_of(fd)? else { return Ok(None) };
        let stat = fstat(&file).map_err(kernel("fstat"))?;
        if stat.st_nlink == 0 {
            return Ok(None);
        }
        Ok(Some(Self { at, mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid }))
    }

    /// The file that the last life of this socket left is replaced.
    fn bind(&self, fd: BorrowedFd<'_>, path: &[u8], address: &[u8]) -> Result<()> {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
        let name = text(path)?;
        let left = std::fs::symlink_metadata(&self.at);
        if left.is_ok_and(|left| left.file_type().is_socket()) {
            std::fs::remove_file(&self.at).map_err(kernel_io("unlink"))?;
        }
        elsewhere(|| {
            self.look_from_where_it_was_bound(name)?;
            net::bind(fd, address).map_err(kernel("bind"))
        })?;
        let mode = std::fs::Permissions::from_mode(self.mode);
        chown(&self.at, Some(self.uid), Some(self.gid)).map_err(kernel_io("chown"))?;
        std::fs::set_permissions(&self.at, mode).map_err(kernel_io("chmod"))
    }

    /// What precedes the name in the file's path was the root or the working directory. Where links
    /// hide that, the folder will do if the name has none.
    fn look_from_where_it_was_bound(&self, name: &Path) -> Result<()> {
        let at = Path::new(&self.at);
        if at == name {
            return Ok(());
        }
        let (own, rooted) = match name.strip_prefix("/") {
            Ok(own) => (own, true),
            Err(_) => (name.strip_prefix(".").unwrap_or(name), false),
        };
        let Some(base) = strip_suffix(at, own) else {
            return Ok(()); // By way of links or dots: from here, or not at all.
        };
        if rooted {
            std::os::unix::fs::chroot(base).map_err(kernel_io("chroot"))
        } else {
            nix::unistd::chdir(&*base).map_err(kernel("chdir"))
        }
    }
}

fn strip_suffix(path: &Path, suffix: &Path) -> Option<PathBuf> {
    path.ends_with(suffix)
        .then(|| path.ancestors().nth(suffix.components().count()))?
        .map(Into::into)
}

/// Does something in a thread whose root, working directory and umask are its own.
fn elsewhere(what: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    let apart = || {
        unshare(CloneFlags::CLONE_FS).map_err(kernel("unshare"))?;
        what()
    };
    std::thread::scope(|scope| scope.spawn(apart).join())
        .unwrap_or(Err(Error::Kernel("unshare", Errno::ECANCELED)))
}

/// An empty file system, seen by this thread only, with the folders that `name` needs.
fn unseen(name: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(kernel("unshare"))?;
    let (none, at) = (None::<&str>, "/proc");
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(kernel("mount"))?;
    mount(Some("none"), at, Some("tmpfs"), MsFlags::empty(), none).map_err(kernel("mount"))?;
    std::os::unix::fs::chroot(at).map_err(kernel_io("chroot"))?;
    nix::unistd::chdir("/").map_err(kernel("chdir"))?;
    let folder = name.parent().unwrap_or(name);
    std::fs::create_dir_all(folder).map_err(kernel_io("mkdir"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_precedes_a_name_is_where_it_was_bound() {
        let at = Path::new("/a/b/c/d");
        assert_eq!(strip_suffix(at, Path::new("c/d")), Some("/a/b".into()));
        assert_eq!(strip_suffix(at, Path::new("a/b/c/d")), Some("/".into()));
        assert_eq!(strip_suffix(at, Path::new("x/d")), None);
    }

    #[test]
    fn names_come_and_go_as_the_kernel_has_them() {
        assert_eq!(sun_path(&[1, 0, b'x', 0]), b"x");
        assert_eq!(sun_path(&[1, 0, 0, b'x', 0]), b"\0x\0", "abstract names may end with zeros");
        assert_eq!(address(b"x"), [1, 0, b'x', 0]);
        assert_eq!(address(b""), [1, 0], "autobind");
    }
}
