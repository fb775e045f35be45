//! The state directory: where everything is, and who holds which lock.
//!
//! Sockets are reached through `/proc/self/fd`, because `sun_path` ends after 108 bytes and state
//! directories need not.
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{F_UNLCK, F_WRLCK, flock};

use crate::error::{Error, Result, cannot};

/// One state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home(PathBuf);

/// A lock that is held until dropped, or until its holder dies: one of the open file (`F_OFD_SETLK`,
/// fcntl(2)), because whether such a one is held can be asked without taking it.
#[derive(Debug)]
pub struct Lock {
    _held: File,
}

impl Home {
    /// The directory, made if it is not there.
    pub fn open(dir: &Path) -> Result<Self> {
        let say = |path: &Path| format!("use the state directory {}", path.display());
        let make = |path: &Path| {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(path).map_err(cannot(say(path)))
        };
        make(dir)?;
        let home = Self(dir.canonicalize().map_err(cannot(say(dir)))?);
        for part in ["run", "logs"] {
            make(&home.0.join(part))?;
        }
        Ok(home)
    }

    /// Where it is used without an option saying so.
    #[must_use]
    pub fn default_dir(root: bool, state_home: Option<&Path>, user_home: Option<&Path>) -> PathBuf {
        if root {
            return "/var/lib/snapd-checkpoints".into();
        }
        let state = state_home.map(Path::to_owned);
        let state = state.or_else(|| user_home.map(|home| home.join(".local/state")));
        state.unwrap_or_else(|| "/tmp".into()).join("snapd-checkpoints")
    }

    /// Its path.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// `DIR/run/NAME.SUFFIX`.
    #[must_use]
    pub fn run(&self, name: &str, suffix: &str) -> PathBuf {
        self.0.join("run").join(format!("{name}.{suffix}"))
    }

    /// `DIR/logs/NAME.SUFFIX`.
    #[must_use]
    pub fn logs(&self, name: &str, suffix: &str) -> PathBuf {
        self.0.join("logs").join(format!("{name}.{suffix}"))
    }

    /// Takes `DIR/run/NAME.SUFFIX` as a lock; `None` if somebody has it.
    pub fn try_lock(&self, name: &str, suffix: &str) -> Result<Option<Lock>> {
        let path = self.run(name, suffix);
        let file = lock_file(&path)?;
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole())) {
            Ok(_) => Ok(Some(Lock { _held: file })),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(errno) => Err(cannot(format!("lock {}", path.display()))(errno)),
        }
    }

    /// Waits for what only one may do in the whole directory.
    pub(crate) fn lock_all(&self) -> Result<Lock> {
        let path = self.0.join("run").join("lock");
        let file = lock_file(&path)?;
        let locked = fcntl(&file, FcntlArg::F_OFD_SETLKW(&whole()));
        locked.map_err(cannot(format!("lock {}", path.display())))?;
        Ok(Lock { _held: file })
    }

    /// Whether somebody holds this lock.
    pub fn is_locked(&self, name: &str, suffix: &str) -> Result<bool> {
        let path = self.run(name, suffix);
        if !path.exists() {
            return Ok(false);
        }
        let mut seen = whole();
        let asked = fcntl(lock_file(&path)?, FcntlArg::F_OFD_GETLK(&mut seen));
        asked.map_err(cannot(format!("look at {}", path.display())))?;
        Ok(i32::from(seen.l_type) != F_UNLCK)
    }

    /// Connects to the socket `DIR/run/NAME.SUFFIX`.
    pub fn connect(&self, name: &str, suffix: &str) -> Result<UnixStream> {
        let say = format!("connect to {}", self.run(name, suffix).display());
        let (_dir, path) = self.short(name, suffix)?;
        UnixStream::connect(path).map_err(cannot(say))
    }

    /// Listens on the socket `DIR/run/NAME.SUFFIX`, for the owner only. Who calls this holds the
    /// lock that says that no one else does.
    pub fn listen(&self, name: &str, suffix: &str) -> Result<UnixListener> {
        let say = format!("listen on {}", self.run(name, suffix).display());
        let _ = fs::remove_file(self.run(name, suffix));
        let (_dir, path) = self.short(name, suffix)?;
        let listener = UnixListener::bind(path).map_err(cannot(say.clone()))?;
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(self.run(name, suffix), mode).map_err(cannot(say))?;
        Ok(listener)
    }

    fn short(&self, name: &str, suffix: &str) -> Result<(File, PathBuf)> {
        let run = self.0.join("run");
        let dir = File::open(&run).map_err(cannot(format!("open {}", run.display())))?;
        let path = format!("/proc/self/fd/{}/{name}.{suffix}", dir.as_raw_fd());
        Ok((dir, path.into()))
    }
}

fn lock_file(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(cannot(format!("open {}", path.display())))
}

/// All of a file, for us alone.
fn whole() -> flock {
    let kind = i16::try_from(F_WRLCK).unwrap_or_default();
    flock { l_type: kind, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 }
}

/// Refuses what is not a workload's name.
pub fn check_name(name: &str) -> Result<()> {
    policies::name::check(name).map_err(|error| Error::Refused(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_works_however_deep_the_directory() {
        let top = tempfile::tempdir().unwrap();
        let home = Home::open(&top.path().join("d".repeat(120)).join("e".repeat(120))).unwrap();
        let _listener = home.listen("a", "shim").unwrap();
        home.connect("a", "shim").unwrap();
        home.connect("b", "shim").unwrap_err();
    }

    #[test]
    fn a_lock_is_had_once() {
        let top = tempfile::tempdir().unwrap();
        let home = Home::open(top.path()).unwrap();
        assert!(!home.is_locked("a", "lock").unwrap());
        let held = home.try_lock("a", "lock").unwrap();
        assert!(held.is_some());
        assert!(home.is_locked("a", "lock").unwrap());
        drop(held);
        assert!(!home.is_locked("a", "lock").unwrap());
    }

    #[test]
    fn the_default_directory_depends_on_who_asks() {
        let (state, home) = (Path::new("/s"), Path::new("/h"));
        let dir = |root, state, home| Home::default_dir(root, state, home);
        assert_eq!(dir(true, Some(state), None), Path::new("/var/lib/snapd-checkpoints"));
        assert_eq!(dir(false, Some(state), Some(home)), Path::new("/s/snapd-checkpoints"));
        let found = dir(false, None, Some(home));
        assert_eq!(found, Path::new("/h/.local/state/snapd-checkpoints"));
    }
}
