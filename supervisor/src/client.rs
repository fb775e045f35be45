//! What commands ask of workloads, with typed answers: commands only render.
//!
//! Requests survive the death of the keeper they were sent to: the next one is asked again.
mod stopped;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::book::{Book, Entry};
use crate::error::{Error, Result, cannot};
use crate::home::Home;
use crate::options::{Checkpoint, Ear, News, Stop};
use crate::wire::{
    AskCheckpoint, AskStop, Channel, Empty, FromKeeper, Info, Obstacle, ToKeeper, from_keeper,
    to_keeper,
};

/// How long a keeper may take to come up and answer.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(5);
/// How often a request is sent again when its keeper dies.
const TRIES: usize = 10;

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
    book.entries()?.into_iter().map(|entry| one(home, &book, entry)).collect()
}

/// One of them.
pub fn status(home: &Home, name: &str) -> Result<Listed> {
    let book = Book::open(home)?;
    let entry = book.entry(name)?;
    one(home, &book, entry)
}

fn one(home: &Home, book: &Book, entry: Entry) -> Result<Listed> {
    let name = &entry.definition.name;
    if !is_running(home, name)? && !entry.is_alive() {
        return Ok(Listed { entry: entry.as_it_ended(), live: None });
    }
    let status = to_keeper::Of::Status(Empty {});
    match ask(home, name, &status, &Ear::default()) {
        Ok(from_keeper::Of::Info(info)) => Ok(Listed { entry, live: Some(info) }),
        // It ended while we asked: what was written last counts.
        _ => Ok(Listed { entry: book.entry(name)?, live: None }),
    }
}

/// Takes a snapshot; its number.
pub fn checkpoint(home: &Home, name: &str, how: &Checkpoint, ear: &Ear) -> Result<u64> {
    let ask = AskCheckpoint { stop: how.stop, tags: how.tags.clone() };
    let seq = done(request(home, name, &to_keeper::Of::Checkpoint(ask), ear)?)?;
    if how.stop {
        let_go(home, name)?;
    }
    Ok(seq)
}

/// Ends a workload; the number of the snapshot that was asked for before.
pub fn stop(home: &Home, name: &str, how: &Stop, ear: &Ear) -> Result<Option<u64>> {
    if how.checkpoint {
        let last = Checkpoint { stop: true, tags: Vec::new() };
        return checkpoint(home, name, &last, ear).map(Some);
    }
    let timeout_ms = u64::try_from(how.timeout.as_millis()).unwrap_or(u64::MAX);
    let ask = AskStop { signal: how.signal, timeout_ms };
    end(home, name, &to_keeper::Of::Stop(ask))?;
    Ok(None)
}

/// Ends it by force.
pub fn kill(home: &Home, name: &str) -> Result<()> {
    end(home, name, &to_keeper::Of::Kill(Empty {}))
}

/// An end that came while its keeper died is one all the same.
fn end(home: &Home, name: &str, of: &to_keeper::Of) -> Result<()> {
    match request(home, name, of, &Ear::default()) {
        Ok(answer) => done(answer).map(drop)?,
        Err(Error::Ended(_)) => {}
        Err(error) => return Err(error),
    }
    let_go(home, name)
}

/// Waits until its keeper and shim, which have told of the end, are gone too: the name is free then.
fn let_go(home: &Home, name: &str) -> Result<()> {
    let since = now();
    while is_running(home, name)? && since.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Everything that is in the way of a snapshot.
pub fn look(home: &Home, name: &str) -> Result<Vec<Obstacle>> {
    match request(home, name, &to_keeper::Of::Look(Empty {}), &Ear::default())? {
        from_keeper::Of::Found(found) => Ok(found.obstacles),
        other => done(other).map(|_| Vec::new()),
    }
}

/// Whether it runs, or its keeper is about to bring it back.
pub fn is_running(home: &Home, name: &str) -> Result<bool> {
    Ok(home.is_locked(name, "lock")? || home.is_locked(name, "keeper")?)
}

/// Asks the keeper of a workload that runs.
pub(crate) fn request(
    home: &Home,
    name: &str,
    of: &to_keeper::Of,
    ear: &Ear,
) -> Result<from_keeper::Of> {
    let entry = Book::open(home)?.entry(name)?;
    if !is_running(home, name)? && !entry.is_alive() {
        return Err(Error::Refused(format!("workload {name:?} is not running")));
    }
    ask(home, name, of, ear)
}

fn ask(home: &Home, name: &str, of: &to_keeper::Of, ear: &Ear) -> Result<from_keeper::Of> {
    for _ in 0..TRIES {
        ensure_keeper(home, name)?;
        match converse(home, name, of, ear) {
            Err(Error::Lost(_)) if !is_over(home, name)? => {}
            Err(Error::Lost(_)) => return Err(Error::Ended(name.to_owned())),
            answer => return answer,
        }
    }
    Err(Error::Busy(format!("the keepers of workload {name:?} keep dying")))
}

fn is_over(home: &Home, name: &str) -> Result<bool> {
    Ok(!is_running(home, name)? && !Book::open(home)?.entry(name)?.is_alive())
}

fn converse(home: &Home, name: &str, of: &to_keeper::Of, ear: &Ear) -> Result<from_keeper::Of> {
    // It may just have died.
    let socket = home.connect(name, "control").map_err(|_| Error::Lost("keeper"))?;
    if let Some(answer) = stopped::answer(home, name, &socket, of)? {
        return Ok(answer);
    }
    let mut keeper = Channel::new(socket, "keeper");
    keeper.send(&ToKeeper { of: Some(of.clone()) }, &[])?;
    loop {
        match keeper.expect::<FromKeeper>()?.of {
            Some(from_keeper::Of::Progress(it)) => {
                ear.tell(News::Progress { done: it.done, of: it.of });
            }
            Some(answer) => return Ok(answer),
            None => return Err(Error::Lost("keeper")),
        }
    }
}

pub(crate) fn done(answer: from_keeper::Of) -> Result<u64> {
    match answer {
        from_keeper::Of::Done(seq) => Ok(seq),
        from_keeper::Of::Refused(fault) => Err(Error::Told(Box::new(fault))),
        _ => Err(Error::Lost("keeper")),
    }
}

/// A workload that runs without a keeper gets one. Returns once that takes requests.
pub fn ensure_keeper(home: &Home, name: &str) -> Result<()> {
    let (began, mut ours) = (now(), None);
    while began.elapsed() < PATIENCE {
        if home.connect(name, "control").is_ok() {
            return Ok(());
        }
        let starting =
            ours.as_mut().is_some_and(|keeper: &mut Child| matches!(keeper.try_wait(), Ok(None)));
        // One that was killed may hold its lock for a moment still.
        if !starting && !home.is_locked(name, "keeper")? {
            if is_over(home, name)? {
                return Err(Error::Ended(name.to_owned()));
            }
            let how = if home.is_locked(name, "lock")? { "--take-over" } else { "--recover" };
            let nothing = [Stdio::null(), Stdio::null(), Stdio::null()];
            ours = Some(detach(home, name, &[how], nothing)?);
        }
        std::thread::sleep(PAUSE);
    }
    Err(Error::Busy(format!("the keeper of workload {name:?} does not answer")))
}

/// Starts `snapd __keeper` in a session of its own.
pub(crate) fn detach(home: &Home, name: &str, args: &[&str], streams: [Stdio; 3]) -> Result<Child> {
    let mut keeper = Command::new("/proc/self/exe");
    keeper.arg("__keeper").arg("--dir").arg(home.dir()).arg("--name").arg(name).args(args);
    let [input, output, error] = streams;
    keeper.stdin(input).stdout(output).stderr(error);
    std::os::unix::process::CommandExt::process_group(&mut keeper, 0);
    keeper.spawn().map_err(cannot("start a keeper"))
}

/// Where a workload's log is.
#[must_use]
pub fn log_path(home: &Home, name: &str) -> std::path::PathBuf {
    home.logs(name, "log")
}

/// A name for a workload that was given none: from its command, made unique.
pub(crate) fn free_name(home: &Home, command: Option<&Vec<u8>>) -> Result<String> {
    let command = command.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let names = Book::open(home)?.names()?;
    let taken = |name: &str| names.iter().any(|one| one == name);
    Ok(policies::name::from_command(&command.unwrap_or_default(), taken))
}

#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}
