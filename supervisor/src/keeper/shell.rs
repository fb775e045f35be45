//! The effects around the machine.
use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::link::{Link, outer_pid};
use super::terminal::Terminal;
use super::{Charge, control, signals};
use crate::book::{Book, Entry, now_ms};
use crate::bridge;
use crate::error::{Error, Result, Sort};
use crate::machine::{Action, Ask, Event, Kind, Machine, Options};
use crate::wire::{
    Bring, Fault, Info, Resize, Signal as ToSignal, Take, Whom, from_keeper, from_shim,
    from_worker, to_keeper, to_shim, to_worker,
};

/// For how long an end is put down to a `^C` that was typed.
const TYPED: Duration = Duration::from_secs(5);
/// `^C`.
const INTERRUPT: u8 = 3;

/// What reaches the loop.
pub(super) enum Heard {
    Shim(from_shim::Of),
    ShimGone,
    Worker(Result<from_worker::Of>),
    Signal(Signal),
    Typed(Vec<u8>),
    /// These snapshots are gone, and input before this position with them.
    Retained(Vec<u64>, u64),
    Asked(to_keeper::Of, oneshot::Sender<from_keeper::Of>),
}

pub(super) struct Shell {
    charge: Charge,
    book: Book,
    entry: Entry,
    machine: Machine,
    began: Instant,
    heard: UnboundedReceiver<Heard>,
    hear: UnboundedSender<Heard>,
    link: Option<Link>,
    terminal: Option<Terminal>,
    first: i32,
    restoring: bool,
    interrupted: Option<Instant>,
    replies: BTreeMap<u64, oneshot::Sender<from_keeper::Of>>,
    next_reply: u64,
    /// Why the workload could not even be started.
    fault: Option<Error>,
    /// The last failure's whole story, for whoever asked.
    why: Option<Fault>,
    exit: Option<i32>,
}

impl Shell {
    pub(super) fn new(charge: Charge, book: Book, entry: Entry) -> Result<Self> {
        let (hear, heard) = unbounded_channel();
        let line = book.line(&charge.definition.name)?;
        let terminal = if charge.foreground { Terminal::find()? } else { None };
        Ok(Self {
            machine: Machine::new(Options::of(&charge.definition), line),
            charge,
            book,
            entry,
            began: now(),
            heard,
            hear,
            link: None,
            terminal,
            first: 0,
            restoring: false,
            interrupted: None,
            replies: BTreeMap::new(),
            next_reply: 0,
            fault: None,
            why: None,
            exit: None,
        })
    }

    pub(super) async fn run(mut self) -> Result<i32> {
        signals::watch(&self.hear)?;
        let name = self.charge.definition.name.clone();
        control::listen(&self.charge.home, &name, self.hear.clone())?;
        let begin = self.charge.begin;
        if begin == super::Begin::Running {
            self.take_over()?;
        }
        self.feed(Event::Begin(begin));
        while self.exit.is_none() {
            let wake = self.machine.wake_at().map(|at| self.began + at);
            let wake = wake.unwrap_or_else(|| now() + Duration::from_secs(3600));
            tokio::select! {
                heard = self.heard.recv() => drop(heard.map(|heard| self.hear_out(heard))),
                () = tokio::time::sleep_until(wake.into()) => self.feed(Event::Tick),
            }
        }
        // Answers that were given are on their way in tasks of their own.
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
        drop(self.terminal.as_mut().map(Terminal::finish));
        let _ = std::fs::remove_file(self.charge.home.run(&name, "control"));
        match self.fault.take() {
            Some(error) => Err(error),
            None => Ok(self.exit.unwrap_or(0)),
        }
    }

    /// A workload that runs already.
    fn take_over(&mut self) -> Result<()> {
        let link = Link::meet(&self.charge)?;
        link.listen(self.terminal.is_some(), self.hear.clone())?;
        link.send(to_shim::Of::Ask(crate::wire::Empty {}))?;
        self.link = Some(link);
        Ok(())
    }

    fn feed(&mut self, event: Event) {
        let mut events = vec![event];
        while !events.is_empty() {
            let event = events.remove(0);
            for action in self.machine.on(event, now() - self.began) {
                events.extend(self.perform(action));
            }
        }
        let state = self.machine.state();
        if self.entry.state != state {
            state.clone_into(&mut self.entry.state);
            drop(self.book.put(&self.entry));
        }
    }

    /// Does it; returns how that went where it is known at once.
    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::StartFresh => {
                return self.start_fresh().err().map(|error| self.unstarted(error));
            }
            Action::Restore { seq } => {
                let why = self.restore(seq).err().map(|error| Fault::of(&error).text);
                return why.map(|why| Event::NotRestored { why });
            }
            Action::Checkpoint { trigger, tags, stop } => {
                let why = self.checkpoint(trigger, tags, stop).err();
                return why.map(|error| self.unchecked(&error));
            }
            Action::Retain { keep_last } => self.retain(keep_last),
            Action::Signal { number } => self.signal(number, Whom::First),
            Action::Kill => self.signal(Signal::SIGKILL as i32, Whom::All),
            Action::Record { kind, seq, reason } => self.record(kind, seq, &reason),
            Action::Answer { id, result } => self.answer(id, result),
            Action::Exit { code } => {
                self.entry.exit_code = Some(code);
                self.entry.state.clear(); // So that what it is now is written.
                self.exit = Some(code);
            }
        }
        None
    }

    fn start_fresh(&mut self) -> Result<()> {
        drop(self.terminal.as_mut().map(Terminal::give_back));
        // A directory without a store has no line to leave.
        drop(self.book.rewind(&self.charge.definition.name, None));
        let link = Link::make(&self.charge, None)?;
        link.listen(self.terminal.is_some(), self.hear.clone())?;
        link.start()?;
        self.link = Some(link);
        self.restoring = false;
        Ok(())
    }

    fn restore(&mut self, seq: u64) -> Result<()> {
        drop(self.terminal.as_mut().map(Terminal::give_back));
        let (home, definition) = (&self.charge.home, &self.charge.definition);
        let settled = bridge::settled_at(home, &definition.name, seq)?;
        self.book.rewind(&definition.name, Some(seq))?;
        let link = Link::make(&self.charge, Some(settled))?;
        link.listen(self.terminal.is_some(), self.hear.clone())?;
        self.link = Some(link);
        let bring = to_worker::Of::Bring(Bring {
            dir: home.dir().as_os_str().as_bytes().to_vec(),
            name: definition.name.clone(),
            seq,
            accept_changed: false,
            keep_files: definition.keep_files,
            held: self.held(seq)?,
            close_tcp: definition.close_tcp,
        });
        self.restoring = true;
        let link = self.link.as_ref().ok_or(Error::Lost("shim"))?;
        link.work(&self.charge.program, bring, self.hear.clone())
    }

    /// Files that others are writing. Shells that wait for us, and what we hold ourselves, are no
    /// others.
    fn held(&self, seq: u64) -> Result<Vec<Vec<u8>>> {
        let what = &self.charge.definition;
        if what.force_rollback || what.keep_files {
            return Ok(Vec::new());
        }
        let shim = self.link.as_ref().map(|link| link.shim.as_raw());
        let ours = ancestors().into_iter().chain(shim).collect();
        let held = bridge::held_by_others(&self.charge.home, &what.name, seq, &ours)?;
        Ok(held.into_iter().map(|path| path.into_os_string().into_vec()).collect())
    }

    fn checkpoint(&mut self, trigger: &str, tags: Vec<String>, stop: bool) -> Result<()> {
        let link = self.link.as_ref().ok_or(Error::Lost("shim"))?;
        let take = to_worker::Of::Take(Take {
            dir: self.charge.home.dir().as_os_str().as_bytes().to_vec(),
            definition: self.charge.definition.clone(),
            trigger: trigger.to_owned(),
            tags,
            stop,
        });
        link.work(&self.charge.program, take, self.hear.clone())
    }

    /// In a thread of its own: removing can take longer than anything else should wait.
    fn retain(&self, keep_last: usize) {
        let (home, name) = (self.charge.home.clone(), self.charge.definition.name.clone());
        let hear = self.hear.clone();
        std::thread::spawn(move || {
            if let Ok((gone, input)) = bridge::retain(&home, &name, keep_last) {
                drop(hear.send(Heard::Retained(gone, input)));
            }
        });
    }

    fn unstarted(&mut self, error: Error) -> Event {
        let code = match error.sort() {
            Sort::NotFound => 127,
            Sort::NotExecutable => 126,
            _ => 1,
        };
        self.fault = Some(error);
        Event::NotStarted { code }
    }

    fn unchecked(&mut self, error: &Error) -> Event {
        let fault = Fault::of(error);
        let why = fault.text.clone();
        self.why = Some(fault);
        Event::NotCheckpointed { why }
    }

    fn signal(&self, number: i32, whom: Whom) {
        if let Some(link) = &self.link {
            let _ = link.send(to_shim::Of::Signal(ToSignal { number, whom: whom.into() }));
        }
    }

    fn record(&mut self, kind: Kind, seq: Option<u64>, reason: &str) {
        let name = &self.charge.definition.name;
        drop(self.book.happened(name, kind.word(), seq, reason));
        match kind {
            Kind::Started | Kind::StartedFresh => self.entry.started_at_ms = now_ms(),
            Kind::Restored | Kind::RolledBack => {
                self.entry.restores += 1;
                self.entry.started_at_ms = now_ms();
            }
            Kind::Crashed => self.entry.restarts += 1,
            _ => {}
        }
        self.say(kind, seq, reason);
    }

    /// One line on standard error where a person should know; all of them with `--json`.
    fn say(&self, kind: Kind, seq: Option<u64>, reason: &str) {
        if !self.charge.foreground {
            return;
        }
        let name = &self.charge.definition.name;
        if self.charge.json {
            let at = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
            let word = kind.word();
            let event = serde_json::json!({
                "at": at, "name": name, "kind": word, "seq": seq, "reason": reason, "detail": null,
            });
            let _ = writeln!(std::io::stderr(), "{event}");
            return;
        }
        let line_end = if self.terminal.is_some() { "\r\n" } else { "\n" };
        let of = seq.map(|seq| format!("@{seq}")).unwrap_or_default();
        match kind {
            Kind::Restored => say(&format!("snapd: {name} was restored from {name}{of}{line_end}")),
            Kind::RolledBack => {
                say(&format!("snapd: {name} was rolled back to {name}{of}{line_end}"))
            }
            Kind::StartedFresh => {
                say(&format!("snapd: {name} was started afresh: {reason}{line_end}"))
            }
            Kind::Failed | Kind::RestoreFailed => {
                say(&format!("snapd: {name}{of}: {}: {reason}{line_end}", kind.word()));
            }
            _ => {}
        }
    }

    fn answer(&mut self, id: u64, result: Result<Option<u64>, String>) {
        let Some(reply) = self.replies.remove(&id) else { return };
        drop(reply.send(match result {
            Ok(seq) => from_keeper::Of::Done(seq.unwrap_or(0)),
            Err(text) => {
                let told = self.why.take().filter(|fault| fault.text == text);
                let plain = Fault { sort: Sort::Failed.into(), text, obstacles: Vec::new() };
                from_keeper::Of::Refused(told.unwrap_or(plain))
            }
        }));
    }

    fn hear_out(&mut self, heard: Heard) {
        match heard {
            Heard::Shim(said) => self.hear_shim(said),
            Heard::ShimGone => {
                self.link = None;
                self.first = 0;
                self.feed(Event::Gone);
            }
            Heard::Worker(result) => self.hear_worker(result),
            Heard::Signal(signal) => self.hear_signal(signal),
            Heard::Typed(keys) => {
                if keys.contains(&INTERRUPT) {
                    self.interrupted = Some(now());
                }
                drop(self.link.as_ref().map(|link| link.send(to_shim::Of::Input(keys))));
            }
            Heard::Retained(gone, input) => {
                gone.into_iter().for_each(|seq| self.feed(Event::Forgotten { seq }));
                drop(self.link.as_ref().map(|link| link.send(to_shim::Of::TrimInput(input))));
            }
            Heard::Asked(request, reply) => self.hear_request(request, reply),
        }
    }

    fn hear_shim(&mut self, said: from_shim::Of) {
        match said {
            from_shim::Of::Status(status) => {
                let starting = self.first == 0 && status.first != 0 && !self.restoring;
                self.first = status.first;
                if starting {
                    self.is_up();
                }
            }
            from_shim::Of::Refused(fault) if self.first == 0 && !self.restoring => {
                let event = self.unstarted(Error::Told(Box::new(fault)));
                self.feed(event);
            }
            from_shim::Of::Output(bytes) => {
                let link = self.link.as_ref().and_then(|link| link.again().ok());
                if let (Some(terminal), Some(link)) = (&mut self.terminal, link) {
                    terminal.print(bytes, link);
                }
            }
            from_shim::Of::Stopped(by) if by != 0 => self.stop_too(),
            from_shim::Of::Ended(ended) => {
                if self.interrupted.is_some_and(|at| now() - at < TYPED) {
                    self.feed(Event::Interrupted);
                }
                self.feed(Event::Ended(ended));
            }
            _ => {}
        }
    }

    fn is_up(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            terminal.take(&self.hear);
        }
        self.resize();
        self.feed(Event::Up);
    }

    fn hear_worker(&mut self, result: Result<from_worker::Of>) {
        match result {
            Ok(from_worker::Of::Taken(taken)) => {
                self.feed(Event::Checkpointed { seq: taken.seq });
            }
            Ok(from_worker::Of::Brought(brought)) => {
                self.restoring = false;
                self.first = brought.first;
                self.is_up();
            }
            Ok(_) => {}
            Err(error) if self.restoring => {
                self.restoring = false;
                self.link = None;
                self.feed(Event::NotRestored { why: Fault::of(&error).text });
            }
            Err(error) => {
                let event = self.unchecked(&error);
                self.feed(event);
            }
        }
    }

    fn hear_signal(&mut self, signal: Signal) {
        let detached = !self.charge.foreground;
        match signal {
            Signal::SIGWINCH => self.resize(),
            Signal::SIGCONT => self.go_on_too(),
            // The workload has its own life: only we end.
            Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP if detached => self.exit = Some(0),
            _ if detached => {}
            Signal::SIGTERM => {
                self.feed(Event::Interrupted);
                self.signal(signal as i32, Whom::First);
            }
            Signal::SIGHUP => {
                self.feed(Event::Interrupted);
                self.signal(signal as i32, Whom::Foreground);
                self.signal(Signal::SIGCONT as i32, Whom::Foreground);
            }
            Signal::SIGINT => {
                self.interrupted = Some(now());
                self.signal(signal as i32, Whom::Foreground);
            }
            Signal::SIGTSTP => self.signal(signal as i32, Whom::Foreground),
            other => self.signal(other as i32, Whom::First),
        }
    }

    /// The workload was stopped: so are we, for our shell to see, until it lets us go on.
    fn stop_too(&mut self) {
        if !self.charge.foreground {
            return;
        }
        drop(self.terminal.as_mut().map(Terminal::give_back));
        let _ = kill(Pid::from_raw(0), Signal::SIGSTOP);
    }

    fn go_on_too(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            terminal.take(&self.hear);
        }
        self.resize();
        self.signal(Signal::SIGCONT as i32, Whom::Foreground);
    }

    fn resize(&self) {
        let size = self.terminal.as_ref().and_then(Terminal::size);
        if let (Some(size), Some(link)) = (size, &self.link) {
            let resize = Resize { rows: size.rows.into(), columns: size.columns.into() };
            let _ = link.send(to_shim::Of::Resize(resize));
        }
    }

    fn hear_request(&mut self, request: to_keeper::Of, reply: oneshot::Sender<from_keeper::Of>) {
        let ask = match request {
            to_keeper::Of::Status(_) => {
                drop(reply.send(from_keeper::Of::Info(self.info())));
                return;
            }
            to_keeper::Of::Checkpoint(ask) => Ask::Checkpoint { stop: ask.stop, tags: ask.tags },
            to_keeper::Of::Stop(ask) => {
                Ask::Stop { signal: ask.signal, timeout: Duration::from_millis(ask.timeout_ms) }
            }
            to_keeper::Of::Kill(_) => Ask::Kill,
            to_keeper::Of::Rollback(seq) => Ask::Rollback { seq },
        };
        self.next_reply += 1;
        let id = self.next_reply;
        self.replies.insert(id, reply);
        self.feed(Event::Asked { id, ask });
    }

    fn info(&self) -> Info {
        let since = now() - self.began;
        let next = self.machine.next_due().map(|due| due.saturating_sub(since).as_millis());
        let shim = self.link.as_ref().map(|link| link.shim);
        let pid = shim.and_then(|shim| outer_pid(shim, self.first));
        Info {
            state: self.machine.state().to_owned(),
            pid: pid.unwrap_or(0),
            inner_pid: self.first,
            next_in_ms: next.map(|next| u64::try_from(next).unwrap_or(u64::MAX)),
        }
    }
}

/// We, our parent, its parent...
fn ancestors() -> Vec<i32> {
    let parent = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok().filter(|pid| *pid > 0)
    };
    std::iter::successors(Some(nix::unistd::getpid().as_raw()), parent).collect()
}

#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}

/// One line for whoever is at the terminal; that nobody reads it is no failure.
fn say(text: &str) {
    drop(std::io::stderr().write_all(text.as_bytes()));
}
