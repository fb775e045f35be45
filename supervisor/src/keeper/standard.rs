//! The three standard streams that a shim is made with.
//!
//! They are ours, but for regular files: the workload goes on with the very file that it had, whoever
//! keeps it now. If that is our own standard stream it is shared with us, and with the shell that
//! waits for us; else it is the open file that the shim of before still held, or one opened anew.
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::definition::{Definition, Handed};
use crate::error::{Result, cannot};

/// Files that a shim of before held, by number.
pub(super) type Held = BTreeMap<u32, OwnedFd>;

/// Our own, as they are.
pub(super) fn own() -> Result<Vec<OwnedFd>> {
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let all = [input.as_fd(), output.as_fd(), error.as_fd()];
    let copies: std::io::Result<Vec<_>> = all.iter().map(BorrowedFd::try_clone_to_owned).collect();
    copies.map_err(cannot("use the standard streams"))
}

/// Those for a workload that is brought back.
pub(super) fn of(definition: &Definition, held: &Held) -> Result<Vec<OwnedFd>> {
    let mut all = own()?;
    for (own, number) in all.iter_mut().zip(0..) {
        if let Some(file) = definition.handed.iter().find(|one| one.number == number) {
            *own = again(file, own, held.get(&number))?;
        }
    }
    Ok(all)
}

fn again(file: &Handed, own: &OwnedFd, held: Option<&OwnedFd>) -> Result<OwnedFd> {
    let path = Path::new(OsStr::from_bytes(&file.path));
    let there = [Some(own), held].into_iter().flatten().find(|fd| is_at(fd, path));
    if let Some(fd) = there {
        return fd.try_clone().map_err(cannot("use the standard streams"));
    }
    let kept = OFlag::O_ACCMODE | OFlag::O_APPEND;
    let how = OFlag::from_bits_retain(file.flags) & kept;
    // It is made where it is missing: the roll back of files fills it.
    let make = if how.contains(OFlag::O_WRONLY) || how.contains(OFlag::O_RDWR) {
        OFlag::O_CREAT
    } else {
        OFlag::empty()
    };
    let flags = how | make | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let say = format!("open {}, a standard stream of the workload", path.display());
    open(path, flags, Mode::S_IRUSR | Mode::S_IWUSR).map_err(cannot(say))
}

fn is_at(fd: &OwnedFd, path: &Path) -> bool {
    let one = fd.try_clone().and_then(|fd| File::from(fd).metadata());
    let other = std::fs::metadata(path);
    matches!((one, other), (Ok(one), Ok(other)) if (one.dev(), one.ino()) == (other.dev(), other.ino()))
}

/// A detached keeper lets go of all but regular files: whoever waits for the end of a pipe of ours
/// would wait for ever.
pub(super) fn let_go() -> Result<()> {
    let say = "let go of the standard streams";
    let null = File::options().read(true).write(true).open("/dev/null").map_err(cannot(say))?;
    for (number, fd) in own()?.into_iter().enumerate() {
        if File::from(fd).metadata().is_ok_and(|it| it.is_file()) {
            continue;
        }
        match number {
            0 => dup2_stdin(&null),
            1 => dup2_stdout(&null),
            _ => dup2_stderr(&null),
        }
        .map_err(cannot(say))?;
    }
    Ok(())
}
