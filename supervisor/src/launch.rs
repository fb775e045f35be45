//! From a command's options to a running workload.
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use engine::passing;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::book::Book;
use crate::bridge;
use crate::client::{self, detach, is_running};
use crate::define::define;
use crate::definition::Definition;
use crate::error::{Error, Result, cannot};
use crate::home::Home;
use crate::keeper::{self, Bringing, Charge, Report, Start};
use crate::options::{Done, Ear, Files, News, Restore, Run, Tcp, Up};
use crate::wire::{self, AskRollback, Channel, FromKeeper, from_keeper, to_keeper};

/// `snapd run`.
pub fn run(home: &Home, options: &Run, ear: &Ear) -> Result<Done> {
    let book = Book::open(home)?;
    let name = match &options.name {
        Some(name) => name.clone(),
        None => client::free_name(home, options.command.first())?,
    };
    let definition = define(&name, options)?;
    not_running(home, &name)?;
    let begin = match book.line(&name)?.last() {
        Some(seq) if options.resume => Start::Restore(*seq),
        _ if options.fresh || options.resume => Start::Fresh,
        _ if !book.has_snapshots(&name)? => Start::Fresh,
        _ => {
            let text = format!(
                "workload {name:?} has snapshots: `snapd restore {name}` brings it back, --fresh \
                 starts anew"
            );
            return Err(Error::Refused(text));
        }
    };
    start(Charge::new(home, definition, begin, ear), options.detach, options.json)
}

/// `snapd restore` and `snapd rollback`.
pub fn restore(home: &Home, options: &Restore, ear: &Ear) -> Result<Done> {
    let book = Book::open(home)?;
    let name = options.as_new.as_ref().unwrap_or(&options.name);
    let missing = || Error::Missing(format!("snapshot of workload {:?}", options.name));
    let seq = options.seq.or(book.line(&options.name)?.last().copied()).ok_or_else(missing)?;
    let kept = bridge::kept(home, &options.name, seq)?;
    if options.verify {
        bridge::verify(home, &options.name, seq)?;
    }
    if let Some(new) = options.as_new.as_ref().filter(|_| !options.replace)
        && book.has_snapshots(new)?
    {
        let text = format!("there is a workload {new:?} already, and it has snapshots");
        return Err(Error::Refused(text));
    }
    if is_running(home, name)? {
        if !options.replace {
            return Err(runs(name));
        }
        return replace(home, name, seq, options, ear);
    }
    let mut definition = kept.definition;
    if options.as_new.is_none()
        && let Ok(entry) = book.entry(name)
    {
        // How it is kept is what was said last; what it is, its streams above all, is the snapshot's.
        definition.adopt_rules(&entry.definition);
    }
    name.clone_into(&mut definition.name);
    adapt(&mut definition, options)?;
    let begin = Start::Restore(seq);
    let mut charge = Charge::new(home, definition, begin, ear);
    charge.bring = Bringing {
        from: options.as_new.is_some().then(|| options.name.clone()),
        accept_changed: options.accept_changed,
        verify: options.verify,
    };
    start(charge, options.detach, options.json)
}

/// The keeper that is there does it, and keeps its terminal.
fn replace(home: &Home, name: &str, seq: u64, options: &Restore, ear: &Ear) -> Result<Done> {
    let began = now();
    let files = match options.files {
        None => wire::Files::Default,
        Some(Files::RollBack) => wire::Files::RollBack,
        Some(Files::Keep) => wire::Files::Keep,
    };
    let (accept_changed, verify) = (options.accept_changed, options.verify);
    let ask = AskRollback { seq, accept_changed, files: files.into(), verify };
    let ask = to_keeper::Of::Rollback(ask);
    client::done(client::request(home, name, &ask, ear)?)?;
    let pid = client::status(home, name)?.live.map_or(0, |live| live.pid);
    let up = Up { name: name.to_owned(), seq: Some(seq), pid, took: began.elapsed() };
    Ok(Done::Detached(up))
}

fn adapt(definition: &mut Definition, options: &Restore) -> Result<()> {
    match options.tcp {
        Some(Tcp::Keep) => return Err(Error::Refused("--tcp keep is not there yet".into())),
        Some(tcp) => definition.close_tcp = tcp == Tcp::Close,
        None => {}
    }
    if let Some(files) = options.files {
        definition.keep_files = files == Files::Keep;
        definition.force_rollback = files == Files::RollBack;
    }
    definition.detached = options.detach;
    Ok(())
}

fn start(charge: Charge, detach: bool, json: bool) -> Result<Done> {
    if detach {
        return detached(&charge).map(Done::Detached);
    }
    keeper::run(Charge { foreground: true, json, ..charge }).map(Done::Ended)
}

/// Has a detached keeper do it, and waits until the workload runs.
fn detached(charge: &Charge) -> Result<Up> {
    let (home, name) = (&charge.home, &charge.definition.name);
    let began = now();
    let (ours, theirs) = UnixStream::pair().map_err(cannot("make a connection"))?;
    let keep_open = FcntlArg::F_SETFD(FdFlag::empty());
    fcntl(&theirs, keep_open).map_err(cannot("make a connection"))?;
    let mut how = charge.words();
    how.extend(["--report".to_owned(), theirs.as_raw_fd().to_string()]);
    let how: Vec<_> = how.iter().map(String::as_str).collect();
    detach(home, name, &how, [Stdio::inherit(), Stdio::inherit(), Stdio::inherit()])?;
    drop(theirs);
    let keeper = Channel::new(ours, "keeper");
    keeper.send(&Definition { detached: true, ..charge.definition.clone() }, &[])?;
    let pid = reported(keeper, &charge.ear)?;
    Ok(Up { name: name.clone(), seq: charge.seq(), pid, took: began.elapsed() })
}

/// What a new keeper has to say about the start.
fn reported(mut keeper: Channel, ear: &Ear) -> Result<i32> {
    loop {
        match keeper.expect::<FromKeeper>()?.of {
            Some(from_keeper::Of::Info(info)) => return Ok(info.pid),
            Some(from_keeper::Of::Refused(fault)) => return Err(Error::Told(Box::new(fault))),
            Some(from_keeper::Of::Progress(it)) => {
                ear.tell(News::Progress { done: it.done, of: it.of });
            }
            _ => {}
        }
    }
}

fn not_running(home: &Home, name: &str) -> Result<()> {
    if is_running(home, name)? { Err(runs(name)) } else { Ok(()) }
}

fn runs(name: &str) -> Error {
    Error::Busy(format!("workload {name:?} runs already"))
}

/// `snapd __keeper`: what the hidden command runs, with its arguments.
pub fn keeper_main(args: &[String]) -> Result<i32> {
    let after = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1).cloned()
    };
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let missing = || Error::Refused("a keeper needs a directory and a name".into());
    let home = Home::open(PathBuf::from(after("--dir").ok_or_else(missing)?).as_path())?;
    let name = after("--name").ok_or_else(missing)?;
    let begin = match after("--restore").and_then(|seq| seq.parse().ok()) {
        Some(seq) => Start::Restore(seq),
        None if has("--recover") => Start::Recover,
        None if has("--take-over") => Start::TakeOver,
        None => Start::Fresh,
    };
    let _ = nix::unistd::setsid();
    let report = after("--report").and_then(|number| number.parse().ok());
    let report = report.map(passing::inherited).transpose().map_err(cannot("take a connection"))?;
    let mut report = report.map(|fd| Channel::new(UnixStream::from(fd), "command"));
    let definition = match &mut report {
        Some(command) => command.expect::<Definition>()?,
        None => Book::open(&home)?.entry(&name)?.definition,
    };
    let report = report.map(Report::new);
    let mut charge = Charge::new(&home, definition, begin, &Ear::default());
    charge.bring = Bringing {
        from: after("--from"),
        accept_changed: has("--accept-changed"),
        verify: has("--verify"),
    };
    charge.report.clone_from(&report);
    let kept = keeper::run(charge);
    if let (Err(error), Some(report)) = (&kept, &report) {
        report.refuse(error);
        return Ok(1);
    }
    kept
}

#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}
