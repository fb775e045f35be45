//! The effects around the machine: the loop, and what is done for each action.
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::before::Before;
use super::control::Reply;
use super::link::Link;
use super::standard::Held;
use super::terminal::Terminal;
use super::{Bringing, Charge, Start, control, how_it_ended, signals};
use crate::book::{Book, Entry, Happening, now_ms};
use crate::error::{Error, Result};
use crate::machine::{Action, Begin, Event, Kind, Machine, Met, Options};
use crate::wire::{Fault, Files, Progress, Whom, from_shim, from_worker, to_keeper};

/// The fact under which recovery is kept for the next keeper.
pub(super) const RECOVERY: &str = "recovery";

/// What reaches the loop.
pub(super) enum Heard {
    Shim(from_shim::Of),
    ShimGone(Pid),
    Progress(Progress),
    Worker(Result<from_worker::Of>),
    Signal(Signal),
    Typed(Vec<u8>),
    /// These snapshots are gone, and input before this position with them.
    Retained(Vec<u64>, u64),
    Asked(to_keeper::Of, Reply),
}

pub(super) struct Shell {
    pub(super) charge: Charge,
    pub(super) book: Book,
    pub(super) entry: Entry,
    /// As it was before we were to start it.
    before: Option<Before>,
    pub(super) machine: Machine,
    pub(super) clock: Clock,
    heard: UnboundedReceiver<Heard>,
    pub(super) hear: UnboundedSender<Heard>,
    pub(super) link: Option<Link>,
    pub(super) held: Held,
    pub(super) terminal: Option<Terminal>,
    pub(super) first: i32,
    pub(super) restoring: bool,
    /// The restore has failed with this; said once its shim is gone.
    pub(super) unrestored: Option<String>,
    /// What became of it before our worker could say that it runs.
    pub(super) early: Vec<Event>,
    /// The worker of an earlier keeper.
    pub(super) stranger: Option<i32>,
    pub(super) interrupted: Option<Instant>,
    pub(super) replies: BTreeMap<u64, Reply>,
    pub(super) looking: Option<Reply>,
    pub(super) next_reply: u64,
    /// How the next restore is to be, if somebody said.
    pub(super) told: Option<(Bringing, Files)>,
    /// Why the workload could not even be started.
    pub(super) fault: Option<Error>,
    /// The last failure's whole story, for whoever asked.
    pub(super) why: Option<Fault>,
    pub(super) was_up: bool,
    recovery: String,
    pub(super) exit: Option<i32>,
}

impl Shell {
    pub(super) fn new(
        charge: Charge,
        book: Book,
        entry: Entry,
        before: Option<Before>,
    ) -> Result<Self> {
        let (hear, heard) = unbounded_channel();
        let name = &charge.definition.name;
        let line = book.line(name)?;
        let terminal = if charge.foreground { Terminal::find(&charge.definition)? } else { None };
        let recovery = book.fact(name, RECOVERY)?.unwrap_or_default();
        let options =
            Options { copy_of: charge.bring.from.clone(), ..Options::of(&charge.definition) };
        Ok(Self {
            machine: Machine::new(options, line, recovery.parse().unwrap_or_default()),
            charge,
            book,
            entry,
            before,
            clock: Clock::new(),
            heard,
            hear,
            link: None,
            held: Held::new(),
            terminal,
            first: 0,
            restoring: false,
            unrestored: None,
            early: Vec::new(),
            stranger: None,
            interrupted: None,
            replies: BTreeMap::new(),
            looking: None,
            next_reply: 0,
            told: None,
            fault: None,
            why: None,
            was_up: false,
            recovery,
            exit: None,
        })
    }

    pub(super) async fn run(mut self) -> Result<i32> {
        signals::watch(&self.hear)?;
        let name = self.charge.definition.name.clone();
        let begin = self.begin()?;
        control::listen(&self.charge.home, &name, self.hear.clone())?;
        self.feed(Event::Begin(begin));
        while self.exit.is_none() {
            let wake = self.machine.wake_at().map(|at| self.clock.instant(at));
            let wake = wake.unwrap_or_else(|| now() + Duration::from_secs(3600));
            let watch = self.terminal.as_ref().and_then(Terminal::watch);
            tokio::select! {
                heard = self.heard.recv() => drop(heard.map(|heard| self.hear_out(heard))),
                () = tokio::time::sleep_until(wake.into()) => self.feed(Event::Tick),
                () = tokio::time::sleep(watch.unwrap_or_default()), if watch.is_some() => {
                    self.take_terminal();
                }
            }
        }
        // Answers that were given are on their way in tasks of their own.
        tokio::time::sleep(Duration::from_millis(5)).await;
        drop(self.terminal.as_mut().map(Terminal::finish));
        let _ = std::fs::remove_file(self.charge.home.run(&name, "control"));
        let Some(error) = self.fault.take() else { return Ok(self.exit.unwrap_or(0)) };
        if let Some(before) = self.before.take().filter(|_| !self.was_up) {
            self.or_warn(before.put_back(&self.charge.home, &self.book, &name));
        }
        Err(error)
    }

    /// What the machine has to know of the beginning.
    fn begin(&mut self) -> Result<Begin> {
        let lived = Duration::from_millis(now_ms().saturating_sub(self.entry.started_at_ms));
        Ok(match self.charge.start {
            Start::Fresh => Begin::Fresh,
            Start::Restore(seq) => Begin::Restore(seq),
            Start::TakeOver => match self.take_over(lived) {
                Ok(Some(met)) => Begin::Running(met),
                Ok(None) | Err(Error::Lost(_) | Error::Io { .. }) => self.recover(lived),
                Err(error) => return Err(error),
            },
            Start::Recover => self.recover(lived),
        })
    }

    fn recover(&self, lived: Duration) -> Begin {
        let ended = how_it_ended(&self.charge.home, &self.charge.definition.name);
        Begin::Recover { ended, asked: self.entry.asked, lived }
    }

    /// A workload that is there already; `None` if nothing of it is left but its shim.
    fn take_over(&mut self, lived: Duration) -> Result<Option<Met>> {
        let name = self.charge.definition.name.clone();
        let mut link = Link::meet(&self.charge)?;
        let (status, held) = link.take_over()?;
        self.held = held;
        if status.first == 0 && status.worker == 0 {
            link.leave();
            return Ok(None);
        }
        link.listen(self.terminal.is_some(), self.hear.clone())?;
        self.link = Some(link);
        self.first = status.first;
        self.stranger = Some(status.worker).filter(|worker| *worker != 0);
        let seq = self.book.line(&name)?.last().copied();
        self.catch_up(seq)?;
        let restoring = seq.filter(|_| status.first == 0);
        self.restoring = restoring.is_some();
        if let Some(ended) = status.ended {
            drop(self.hear.send(Heard::Shim(from_shim::Of::Ended(ended))));
        }
        Ok(Some(Met {
            restoring,
            at_work: self.stranger.is_some(),
            asked: self.entry.asked,
            lived,
            since_snapshot: self.since_snapshot(seq),
        }))
    }

    /// The keeper before us may have died between a snapshot and its event.
    fn catch_up(&mut self, newest: Option<u64>) -> Result<()> {
        // What a worker of its own is still to tell of, that will.
        let known = newest.filter(|seq| self.machine.knows(*seq));
        let Some(seq) = known else { return Ok(()) };
        let told = self.book.happenings(&self.charge.definition.name)?;
        let of_it = |one: &Happening| one.seq == newest && one.kind == Kind::Checkpointed.word();
        if !told.iter().any(of_it) {
            self.record(Kind::Checkpointed, Some(seq), "it became durable while nobody kept it");
        }
        Ok(())
    }

    fn since_snapshot(&self, seq: Option<u64>) -> Option<Duration> {
        let all = self.book.store().snapshots(Some(&self.charge.definition.name)).ok()?;
        let newest = all.iter().find(|one| Some(one.seq) == seq)?;
        (chrono::Utc::now() - newest.meta.taken_at).to_std().ok()
    }

    pub(super) fn feed(&mut self, event: Event) {
        let mut events = vec![event];
        while !events.is_empty() {
            let event = events.remove(0);
            let actions = self.machine.on(event, self.clock.now());
            self.keep_book();
            for action in actions {
                events.extend(self.perform(action));
            }
        }
    }

    /// Writes down what the next keeper has to know, before anything comes of it.
    fn keep_book(&mut self) {
        let (state, asked) = (self.machine.lasting_state(), self.machine.is_asked());
        if self.entry.state != state || self.entry.asked != asked {
            state.clone_into(&mut self.entry.state);
            self.entry.asked = asked;
            self.put();
        }
        let recovery = self.machine.recovery().to_string();
        if self.recovery != recovery {
            let name = &self.charge.definition.name;
            self.or_warn(self.book.set_fact(name, RECOVERY, Some(&recovery)));
            self.recovery = recovery;
        }
    }

    pub(super) fn put(&self) {
        self.or_warn(self.book.put(&self.entry));
    }

    /// Does it; returns how that went where it is known at once.
    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::StartFresh { undo } => {
                return self.start_fresh(undo).err().map(|error| self.unstarted(error));
            }
            Action::Restore { seq } => {
                let error = self.restore(seq).err()?;
                return self.unrestored(&error);
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
                self.put();
                self.exit = Some(code);
            }
        }
        None
    }
}

/// The machine's time: it begins long ago, so that a workload can be older than its keeper.
pub(super) struct Clock(Instant);

impl Clock {
    const START: Duration = Duration::from_secs(1 << 32);

    fn new() -> Self {
        Self(now())
    }

    pub(super) fn now(&self) -> Duration {
        Self::START + self.0.elapsed()
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn instant(&self, at: Duration) -> Instant {
        self.0 + at.saturating_sub(Self::START)
    }
}

#[allow(clippy::disallowed_methods)]
pub(super) fn now() -> Instant {
    Instant::now()
}
