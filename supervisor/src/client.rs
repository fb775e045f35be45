//! What commands ask of workloads, with typed answers: commands only render.
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::book::{Book, Entry};
use crate::error::{Error, Result, cannot};
use crate::home::Home;
use crate::wire::{
    AskCheckpoint, AskStop, Channel, Empty, FromKeeper, Info, ToKeeper, from_keeper, to_keeper,
};

/// A line of `snapd ls`.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// What the catalog knows.
    pub entry: Entry,
    /// What its keeper says, if it runs.
    pub live: Option<Info>,
}

/// All workloads.
pub fn list(home: &Home) -> Result<Vec<Listed>> {
    let book = Book::open(home)?;
    book.names()?.iter().map(|name| one(home, &book, name)).collect()
}

/// One of them.
pub fn status(home: &Home, name: &str) -> Result<Listed> {
    one(home, &Book::open(home)?, name)
}

fn one(home: &Home, book: &Book, name: &str) -> Result<Listed> {
    let entry = book.entry(name)?;
    let alive = is_running(home, name)? || entry.is_alive();
    let live = alive.then(|| ask(home, name, to_keeper::Of::Status(Empty {})));
    match live {
        Some(Ok(from_keeper::Of::Info(info))) => Ok(Listed { entry, live: Some(info) }),
        // It ended while we asked: what was written last counts.
        _ => Ok(Listed { entry: book.entry(name)?, live: None }),
    }
}

/// Takes a snapshot; its number.
pub fn checkpoint(home: &Home, name: &str, stop: bool, tags: Vec<String>) -> Result<u64> {
    done(request(home, name, to_keeper::Of::Checkpoint(AskCheckpoint { stop, tags }))?)
}

/// Ends a workload.
pub fn stop(home: &Home, name: &str, signal: i32, timeout: Duration) -> Result<()> {
    let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    done(request(home, name, to_keeper::Of::Stop(AskStop { signal, timeout_ms }))?).map(drop)
}

/// Ends it by force.
pub fn kill(home: &Home, name: &str) -> Result<()> {
    done(request(home, name, to_keeper::Of::Kill(Empty {}))?).map(drop)
}

/// Takes a running workload back to a snapshot.
pub fn rollback(home: &Home, name: &str, seq: u64) -> Result<()> {
    done(request(home, name, to_keeper::Of::Rollback(seq))?).map(drop)
}

/// Whether it runs, or its keeper is about to bring it back.
pub fn is_running(home: &Home, name: &str) -> Result<bool> {
    Ok(home.is_locked(name, "lock")? || home.is_locked(name, "keeper")?)
}

fn request(home: &Home, name: &str, of: to_keeper::Of) -> Result<from_keeper::Of> {
    let entry = Book::open(home)?.entry(name)?;
    if !is_running(home, name)? && !entry.is_alive() {
        return Err(Error::Refused(format!("workload {name:?} is not running")));
    }
    ask(home, name, of)
}

fn ask(home: &Home, name: &str, of: to_keeper::Of) -> Result<from_keeper::Of> {
    ensure_keeper(home, name)?;
    let mut keeper = Channel::new(home.connect(name, "control")?, "keeper");
    keeper.send(&ToKeeper { of: Some(of) }, &[])?;
    keeper.expect::<FromKeeper>()?.of.ok_or(Error::Lost("keeper"))
}

fn done(answer: from_keeper::Of) -> Result<u64> {
    match answer {
        from_keeper::Of::Done(seq) => Ok(seq),
        from_keeper::Of::Refused(fault) => Err(Error::Told(Box::new(fault))),
        from_keeper::Of::Info(_) => Err(Error::Lost("keeper")),
    }
}

/// A workload that runs without a keeper gets one.
pub fn ensure_keeper(home: &Home, name: &str) -> Result<()> {
    if !home.is_locked(name, "keeper")? {
        let runs = home.is_locked(name, "lock")?;
        let how = if runs { "--take-over" } else { "--recover" };
        let mut keeper = detach(home, name, &[how], [Stdio::null(), Stdio::null(), Stdio::null()])?;
        return wait_for_keeper(home, name, &mut || matches!(keeper.try_wait(), Ok(Some(_))));
    }
    wait_for_keeper(home, name, &mut || !is_running(home, name).unwrap_or(true))
}

/// Starts `snapd __keeper` in a session of its own.
pub fn detach(
    home: &Home,
    name: &str,
    args: &[&str],
    streams: [Stdio; 3],
) -> Result<std::process::Child> {
    let mut keeper = Command::new("/proc/self/exe");
    keeper.arg("__keeper").arg("--dir").arg(home.dir()).arg("--name").arg(name).args(args);
    let [input, output, error] = streams;
    keeper.stdin(input).stdout(output).stderr(error);
    std::os::unix::process::CommandExt::process_group(&mut keeper, 0);
    keeper.spawn().map_err(cannot("start a keeper"))
}

/// Until it takes requests.
fn wait_for_keeper(home: &Home, name: &str, ended: &mut dyn FnMut() -> bool) -> Result<()> {
    for _ in 0..500 {
        if home.connect(name, "control").is_ok() {
            return Ok(());
        }
        if ended() {
            return Err(Error::Refused(format!("workload {name:?} has ended")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(Error::Busy(format!("the keeper of workload {name:?} does not answer")))
}

/// Where a workload's log is.
#[must_use]
pub fn log_path(home: &Home, name: &str) -> std::path::PathBuf {
    home.logs(name, "log")
}

/// A name for a workload that was given none: from its command, made unique.
pub fn free_name(home: &Home, command: &Path) -> Result<String> {
    let base = command.file_name().map(|name| name.to_string_lossy().to_lowercase());
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let base: String = base.unwrap_or_default().chars().filter(|c| letter(*c)).take(40).collect();
    let base = if base.is_empty() { "workload".to_owned() } else { base };
    let names = Book::open(home)?.names()?;
    let numbered = (2..).map(|number: u32| format!("{base}-{number}"));
    let mut all = std::iter::once(base.clone()).chain(numbered);
    all.find(|name| !names.contains(name)).ok_or_else(|| Error::Refused("no name is free".into()))
}
