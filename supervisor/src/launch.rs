//! From a command line to a running workload.
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::stat::{Mode, umask};
use prost::Message;

use crate::book::{Book, Entry, now_ms};
use crate::client::{detach, ensure_keeper, is_running};
use crate::definition::{Definition, Stream};
use crate::error::{Error, Result, cannot};
use crate::home::{Home, check_name};
use crate::keeper::{Begin, Charge, run};
use crate::wire::Ended;

/// A definition with what this process has: directory, environment, mask, standard streams.
pub fn define(name: &str, command: Vec<Vec<u8>>) -> Result<Definition> {
    check_name(name)?;
    let cwd = std::env::current_dir().map_err(cannot("find the working directory"))?;
    let mask = umask(Mode::empty());
    umask(mask);
    let env = std::env::vars_os();
    let env = env.map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let streams = [input.as_fd(), output.as_fd(), error.as_fd()].map(|fd| kind_of(fd).into());
    Ok(Definition {
        cwd: cwd.into_os_string().into_vec(),
        umask: mask.bits(),
        env: env.collect(),
        streams: streams.to_vec(),
        ..Definition::new(name, command)
    })
}

/// What becomes of a standard stream.
fn kind_of(fd: BorrowedFd<'_>) -> Stream {
    if nix::unistd::isatty(fd).unwrap_or(false) {
        return Stream::Terminal;
    }
    let seen = fd.try_clone_to_owned().and_then(|fd| File::from(fd).metadata());
    match seen.map(|seen| (seen.file_type(), seen.rdev())) {
        Ok((kind, _)) if kind.is_fifo() || kind.is_socket() => Stream::Pipe,
        _ => Stream::Handed,
    }
}

/// Runs it in the foreground; returns its status.
pub fn foreground(home: Home, definition: Definition, begin: Begin, json: bool) -> Result<i32> {
    let program = PathBuf::from("/proc/self/exe");
    run(Charge { home, definition, begin, foreground: true, json, program })
}

/// Has a detached keeper run it; returns once it runs, or how it ended before that.
pub fn detached(home: &Home, definition: &Definition, begin: Begin) -> Result<Option<i32>> {
    let name = &definition.name;
    if is_running(home, name)? {
        return Err(Error::Busy(format!("workload {name:?} runs already")));
    }
    let book = Book::open(home)?;
    let definition = Definition { detached: true, ..definition.clone() };
    let entry = match book.entry(name) {
        Ok(entry) => Entry { definition, ..entry },
        Err(_) => Entry { definition, started_at_ms: now_ms(), ..Entry::default() },
    };
    book.put(&Entry { state: "starting".into(), ..entry })?;
    let how = match begin {
        Begin::Fresh => vec!["--fresh".to_owned()],
        Begin::Restore(seq) => vec!["--restore".to_owned(), seq.to_string()],
        Begin::Running => vec!["--take-over".to_owned()],
        Begin::Recover(_) => vec!["--recover".to_owned()],
    };
    let how: Vec<_> = how.iter().map(String::as_str).collect();
    let streams = [Stdio::inherit(), Stdio::inherit(), Stdio::inherit()];
    let mut keeper = detach(home, name, &how, streams)?;
    loop {
        if let Some(status) = keeper.try_wait().map_err(cannot("wait for the keeper"))? {
            return Ok(Some(status.code().unwrap_or(1)));
        }
        let state = book.entry(name)?.state;
        if !["starting", "restoring"].contains(&state.as_str()) {
            ensure_keeper(home, name)?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What the shim wrote down, if it lived to see it.
fn how_it_ended(home: &Home, name: &str) -> Option<Ended> {
    let bytes = std::fs::read(home.run(name, "exit")).ok()?;
    Ended::decode(bytes.as_slice()).ok()
}

/// `snapd __keeper`: what the hidden command runs, with its arguments.
pub fn keeper_main(args: &[String]) -> Result<i32> {
    let after = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1).cloned()
    };
    let missing = || Error::Refused("a keeper needs a directory and a name".into());
    let home = Home::open(PathBuf::from(after("--dir").ok_or_else(missing)?).as_path())?;
    let name = after("--name").ok_or_else(missing)?;
    let begin = match after("--restore").and_then(|seq| seq.parse().ok()) {
        Some(seq) => Begin::Restore(seq),
        None if args.iter().any(|arg| arg == "--recover") => {
            Begin::Recover(how_it_ended(&home, &name))
        }
        None if args.iter().any(|arg| arg == "--take-over") => Begin::Running,
        None => Begin::Fresh,
    };
    let _ = nix::unistd::setsid();
    let definition = Book::open(&home)?.entry(&name)?.definition;
    let program = PathBuf::from("/proc/self/exe");
    run(Charge { home, definition, begin, foreground: false, json: false, program })
}
