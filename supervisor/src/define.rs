//! From what `run` was told to a definition: what this process has, and what the options change.
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Group, Uid, Whence, lseek};

use crate::definition::{self, Definition, Handed, Stream};
use crate::error::{Error, Result, cannot};
use crate::options::{Files, Pidns, Run, Tcp, Tty};

/// The definition that a `run` gives.
pub(crate) fn define(name: &str, options: &Run) -> Result<Definition> {
    if options.tcp == Tcp::Keep {
        let text = "--tcp keep is not there yet: established connections can be closed (close) or \
                    refused (refuse)";
        return Err(Error::Refused(text.into()));
    }
    let mut made = inherited(name, options.command.clone())?;
    if let Some(user) = &options.user {
        let (user, variables) = find_user(user)?;
        made.user = Some(user);
        made.set_variables(variables);
    }
    made.set_variables(options.env.iter().cloned());
    let absolute = |path: &Path| std::path::absolute(path).map_err(cannot("find a directory"));
    if let Some(cwd) = &options.cwd {
        made.cwd = absolute(cwd)?.into_os_string().into_vec();
    }
    let tracked: Result<Vec<PathBuf>> = options.track.iter().map(|path| absolute(path)).collect();
    made.track = tracked?.into_iter().map(|path| path.into_os_string().into_vec()).collect();
    made.streams = made.streams.iter().map(|kind| as_told(*kind, options.tty)).collect();
    made.one_output = made.stream(1) == Stream::Pipe && outputs_are_one();
    made.host_pids = options.pidns == Pidns::Host;
    made.every_ms = options.every.map_or(0, milliseconds);
    made.keep_last = options.keep_last;
    made.restart_on(options.restart);
    made.restart_limit = u32::try_from(options.restart_limit.starts).unwrap_or(u32::MAX);
    made.restart_window_ms = milliseconds(options.restart_limit.within);
    made.keep_files = options.files == Some(Files::Keep);
    made.force_rollback = options.files == Some(Files::RollBack);
    made.close_tcp = options.tcp == Tcp::Close;
    made.freeze_timeout_ms = milliseconds(options.freeze_timeout);
    made.detached = options.detach;
    Ok(made)
}

/// A definition with what this process has: directory, environment, mask, standard streams.
fn inherited(name: &str, command: Vec<Vec<u8>>) -> Result<Definition> {
    let cwd = std::env::current_dir().map_err(cannot("find the working directory"))?;
    let mask = umask(Mode::empty());
    umask(mask);
    let env = std::env::vars_os();
    let env = env.map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
    Ok(Definition {
        cwd: cwd.into_os_string().into_vec(),
        umask: mask.bits(),
        env: env.collect(),
        streams: own_streams(),
        handed: handed_files(),
        ..Definition::new(name, command)
    })
}

/// What becomes of this process's three standard streams.
fn own_streams() -> Vec<i32> {
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    [input.as_fd(), output.as_fd(), error.as_fd()].map(|fd| kind_of(fd).into()).to_vec()
}

/// Those of them that are regular files, so that another keeper can open them again.
fn handed_files() -> Vec<Handed> {
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let all = [input.as_fd(), output.as_fd(), error.as_fd()];
    let numbered = all.into_iter().zip(0..);
    numbered.filter_map(|(fd, number)| handed_file(fd, number)).collect()
}

fn handed_file(fd: BorrowedFd<'_>, number: u32) -> Option<Handed> {
    let link = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let size = link.metadata().ok().filter(std::fs::Metadata::is_file)?.len();
    let path = std::fs::read_link(link).ok()?.into_os_string().into_vec();
    let flags = fcntl(fd, FcntlArg::F_GETFL).ok()?;
    let position = lseek(fd, 0, Whence::SeekCur).ok().and_then(|at| at.try_into().ok())?;
    Some(Handed { number, path, flags, size, position })
}

fn kind_of(fd: BorrowedFd<'_>) -> Stream {
    if nix::unistd::isatty(fd).unwrap_or(false) {
        return Stream::Terminal;
    }
    let seen = fd.try_clone_to_owned().and_then(|fd| File::from(fd).metadata());
    match seen.map(|seen| seen.file_type()) {
        Ok(kind) if kind.is_fifo() || kind.is_socket() => Stream::Pipe,
        _ => Stream::Handed,
    }
}

/// Whether standard output and standard error are one thing.
fn outputs_are_one() -> bool {
    let of = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().and_then(|fd| File::from(fd).metadata());
    match (of(std::io::stdout().as_fd()), of(std::io::stderr().as_fd())) {
        (Ok(one), Ok(two)) => (one.dev(), one.ino()) == (two.dev(), two.ino()),
        _ => false,
    }
}

/// `--tty`. What is no terminal of ours although it is one elsewhere is passed through like a pipe.
fn as_told(kind: i32, tty: Tty) -> i32 {
    match (tty, Stream::try_from(kind)) {
        (Tty::Yes, _) => Stream::Terminal.into(),
        (Tty::No, Ok(Stream::Terminal)) => Stream::Pipe.into(),
        _ => kind,
    }
}

/// Says whether `--user` means anybody here.
pub fn check_user(text: &str) -> Result<()> {
    find_user(text).map(drop)
}

/// `USER[:GROUP]`, names or numbers; and the variables that a login of theirs would have.
fn find_user(text: &str) -> Result<(definition::User, Vec<Vec<u8>>)> {
    let (name, group) = text.split_once(':').map_or((text, None), |(user, of)| (user, Some(of)));
    let missing = |what: &str, name: &str| Error::Refused(format!("there is no {what} {name:?}"));
    let by_number = |name: &str| name.parse().ok();
    let known = match by_number(name) {
        Some(number) => nix::unistd::User::from_uid(Uid::from_raw(number)),
        None => nix::unistd::User::from_name(name),
    };
    let known = known.map_err(cannot("look up a user"))?;
    let number = known.as_ref().map(|user| user.uid.as_raw()).or_else(|| by_number(name));
    let user = number.ok_or_else(|| missing("user", name))?;
    let group = match group {
        None => None,
        Some(name) => Some(find_group(name)?.ok_or_else(|| missing("group", name))?),
    };
    let own = known.as_ref().map(|user| user.gid.as_raw());
    let group = group.or(own).ok_or_else(|| missing("group of user", name))?;
    let groups = known.as_ref().map_or_else(Vec::new, |user| groups_of(&user.name, group));
    let variables = known.map_or_else(Vec::new, |user| {
        let named = |name: &str, value: &[u8]| [name.as_bytes(), b"=", value].concat();
        vec![
            named("HOME", user.dir.as_os_str().as_bytes()),
            named("USER", user.name.as_bytes()),
            named("LOGNAME", user.name.as_bytes()),
        ]
    });
    Ok((definition::User { user, group, groups }, variables))
}

fn find_group(name: &str) -> Result<Option<u32>> {
    if let Ok(number) = name.parse() {
        return Ok(Some(number));
    }
    let found = Group::from_name(name).map_err(cannot("look up a group"))?;
    Ok(found.map(|group| group.gid.as_raw()))
}

fn groups_of(user: &str, group: u32) -> Vec<u32> {
    let Ok(user) = std::ffi::CString::new(user) else { return Vec::new() };
    let groups = nix::unistd::getgrouplist(&user, Gid::from_raw(group)).unwrap_or_default();
    groups.into_iter().map(Gid::as_raw).collect()
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_make_a_definition() {
        let mut options = Run::new(vec![b"true".to_vec()]);
        options.every = Some(Duration::from_millis(500));
        options.track = vec!["data".into()];
        options.env = vec![b"A=1".to_vec()];
        options.user = Some("0:0".into());
        options.files = Some(Files::RollBack);
        let made = define("a", &options).unwrap();
        assert_eq!((made.every_ms, made.keep_last, made.restart_limit), (500, 10, 10));
        assert!(made.track[0].starts_with(b"/") && made.track[0].ends_with(b"/data"));
        assert!(made.env.contains(&b"A=1".to_vec()) && made.env.contains(&b"HOME=/root".to_vec()));
        assert!(made.force_rollback && !made.keep_files);
        assert_eq!(made.user.map(|user| (user.user, user.group)), Some((0, 0)));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let mut options = Run::new(vec![b"true".to_vec()]);
        options.user = Some("nobody-of-this-name".into());
        assert!(define("a", &options).unwrap_err().to_string().contains("nobody-of-this-name"));
        options.user = None;
        options.tcp = Tcp::Keep;
        assert!(define("a", &options).unwrap_err().to_string().contains("--tcp keep"));
    }

    #[test]
    fn a_terminal_that_is_not_wanted_is_passed_through() {
        let told = |kind: Stream, tty| as_told(kind.into(), tty);
        assert_eq!(told(Stream::Terminal, Tty::No), i32::from(Stream::Pipe));
        assert_eq!(told(Stream::Pipe, Tty::Yes), i32::from(Stream::Terminal));
        assert_eq!(told(Stream::Handed, Tty::Auto), i32::from(Stream::Handed));
    }
}
