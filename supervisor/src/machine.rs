//! The keeper's decisions, as a pure function: what happened and when, to what is to be done.
//!
//! No I/O and no clock: time comes with each event, as time since some beginning. What a crash leads
//! to is `policies::choice`'s to say. The shell around it ([`crate::keeper`]) performs the actions
//! and reports how they went as further events.
//!
//! While a snapshot is being taken, an end is not judged yet: the snapshot may still become durable,
//! and then is what recovery goes back to; and with `--stop` the end was meant.
mod action;
mod ends;
mod event;
mod requests;
mod starts;

use std::time::Duration;

use chrono::{DateTime, Utc};
use policies::backoff::Starts;
use policies::choice::Recovery;
use policies::schedule::Schedule;

pub use self::action::{Action, Kind};
pub use self::event::{Ask, Begin, Event, Met, Options};
use crate::wire::Ended;

/// How long after its start a scheduled workload's first snapshot is taken.
const FIRST: Duration = Duration::from_millis(100);

/// What the workload is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Starting afresh.
    Starting,
    /// Being brought back from this snapshot.
    Restoring(u64),
    /// Up.
    Running,
    /// Waiting to be brought back.
    Waiting(Duration, Next),
    /// It ended, and its tree is being cleared away; then this.
    Ending(Outcome),
    /// Over, or not begun.
    Over(Outcome),
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Restore(u64),
    /// `undo`: after a run that came to nothing.
    Fresh {
        undo: bool,
    },
}

/// How it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Finished,
    Stopped,
    Failed,
    /// It is not: after this pause.
    Again(Duration, Next),
}

/// A snapshot that is being taken, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Taking {
    asked_by: Option<u64>,
    stop: bool,
}

/// A way back that somebody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rollback {
    asked_by: u64,
    seq: u64,
    begun: bool,
}

/// One workload's keeper.
#[derive(Debug)]
pub struct Machine {
    options: Options,
    state: State,
    /// Snapshots of the current line, newest first.
    line: Vec<u64>,
    recovery: Recovery,
    starts: Starts,
    /// Starts in a row, for the pauses between them.
    tries: u32,
    up_at: Duration,
    taking: Option<Taking>,
    /// Ends that are judged once the snapshot in progress is done.
    held: Vec<Event>,
    /// Requests that wait for the snapshot in progress, or for the workload to run.
    waiting: Vec<(u64, Ask)>,
    schedule: Schedule,
    /// When the next snapshot is due.
    due: Option<Duration>,
    /// Somebody asked for the end; those who wait for it, and when patience ends.
    asked: bool,
    stoppers: Vec<u64>,
    kill_at: Option<Duration>,
    rollback: Option<Rollback>,
    code: i32,
}

impl Machine {
    /// Of a workload with these snapshots on its current line, oldest first, and what recovery
    /// remembers.
    #[must_use]
    pub fn new(options: Options, mut line: Vec<u64>, recovery: Recovery) -> Self {
        line.reverse();
        Self {
            schedule: Schedule::default().interval(options.every.unwrap_or_default()),
            options,
            state: State::Over(Outcome::Finished),
            line,
            recovery,
            starts: Starts::default(),
            tries: recovery.tries(),
            up_at: Duration::ZERO,
            taking: None,
            held: Vec::new(),
            waiting: Vec::new(),
            due: None,
            asked: false,
            stoppers: Vec::new(),
            kill_at: None,
            rollback: None,
            code: 0,
        }
    }

    /// What to do now.
    pub fn on(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let mut todo = Vec::new();
        self.happen(event, now, &mut todo);
        self.what_is_due(now, &mut todo);
        todo
    }

    fn happen(&mut self, event: Event, now: Duration, todo: &mut Vec<Action>) {
        match event {
            Event::Begin(how) => self.begin(how, now, todo),
            Event::Up => self.up(now, todo),
            Event::NotStarted { code } => self.not_started(code, todo),
            Event::NotRestored { why } => self.not_restored(&why, now, todo),
            Event::Ended(_) | Event::Gone if self.taking.is_some() => self.held.push(event),
            Event::Ended(ended) => {
                self.ended(ended, now, todo);
                self.hasten(todo);
            }
            Event::Gone => self.gone(now, todo),
            Event::Checkpointed { seq } => self.checkpointed(seq, now, todo),
            Event::NotCheckpointed { why } => self.not_checkpointed(&why, now, todo),
            Event::Forgotten { seq } => self.line.retain(|one| *one != seq),
            Event::Interrupted => self.asked = true,
            Event::Asked { id, ask } => self.asked_for(id, ask, now, todo),
            Event::Tick => {}
        }
    }

    /// When to come back with [`Event::Tick`], if nothing happens before.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        let waiting = match self.state {
            State::Waiting(until, _) => Some(until),
            State::Running if self.taking.is_none() => self.due,
            _ => None,
        };
        waiting.into_iter().chain(self.kill_at).min()
    }

    /// The word for what it is doing.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self.state {
            State::Running if self.taking.is_some() => "checkpointing",
            _ => self.lasting_state(),
        }
    }

    /// Likewise, whether or not a snapshot is being taken.
    #[must_use]
    pub fn lasting_state(&self) -> &'static str {
        match self.state {
            State::Starting => "starting",
            State::Restoring(_) => "restoring",
            State::Running => "running",
            State::Waiting(..) | State::Ending(Outcome::Again(..)) => "backoff",
            State::Ending(how) | State::Over(how) => match how {
                Outcome::Failed => "failed",
                Outcome::Stopped => "stopped",
                Outcome::Finished | Outcome::Again(..) => "finished",
            },
        }
    }

    /// When the next snapshot is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.due
    }

    /// Whether somebody asked for the end.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked
    }

    /// The snapshot that is being restored.
    #[must_use]
    pub fn restoring(&self) -> Option<u64> {
        match self.state {
            State::Restoring(seq) => Some(seq),
            _ => None,
        }
    }

    /// Whether a snapshot is being taken.
    #[must_use]
    pub fn is_taking(&self) -> bool {
        self.taking.is_some()
    }

    /// Whether this snapshot is on the current line.
    #[must_use]
    pub fn knows(&self, seq: u64) -> bool {
        self.line.contains(&seq)
    }

    /// What the next keeper has to know of recovery.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    fn checkpointed(&mut self, seq: u64, now: Duration, todo: &mut Vec<Action>) {
        if !self.line.contains(&seq) {
            self.line.insert(0, seq);
        }
        todo.push(Action::record(Kind::Checkpointed, Some(seq), "it is durable"));
        let taking = self.taking.take();
        let asked_by = taking.as_ref().and_then(|taking| taking.asked_by);
        todo.extend(asked_by.map(|id| Action::answer(id, Some(seq))));
        self.asked |= taking.is_some_and(|taking| taking.stop);
        // As long as the newer ones are in doubt, the older ones may be needed.
        if self.recovery.counts(seq, now.saturating_sub(self.up_at)) {
            todo.push(Action::Retain { keep_last: self.options.keep_last });
        }
        self.go_on(now, todo);
    }

    fn not_checkpointed(&mut self, why: &str, now: Duration, todo: &mut Vec<Action>) {
        let why = if self.rollback.is_some() { "it was given up for a roll back" } else { why };
        todo.push(Action::record(Kind::CheckpointFailed, None, why));
        let asked_by = self.taking.take().and_then(|taking| taking.asked_by);
        todo.extend(asked_by.map(|id| Action::refuse(id, why)));
        self.go_on(now, todo);
    }

    /// No snapshot is in progress any more.
    fn go_on(&mut self, now: Duration, todo: &mut Vec<Action>) {
        for event in std::mem::take(&mut self.held) {
            self.happen(event, now, todo);
        }
        self.next_in_line(now, todo);
    }

    /// What time alone brings.
    fn what_is_due(&mut self, now: Duration, todo: &mut Vec<Action>) {
        if self.kill_at.is_some_and(|at| now >= at) {
            self.kill_at = None;
            todo.push(Action::Kill);
        }
        match self.state {
            State::Waiting(until, next) if now >= until => match next {
                Next::Restore(seq) => {
                    self.rollback = self.rollback.map(|it| Rollback { begun: true, ..it });
                    self.restore(seq, todo);
                }
                Next::Fresh { undo } => {
                    let why = if undo {
                        "there is no snapshot left to try"
                    } else {
                        "it has ended, and is always started again"
                    };
                    self.start_fresh(undo, todo);
                    todo.push(Action::record(Kind::StartedFresh, None, why));
                }
            },
            State::Running if self.due.is_some_and(|due| now >= due) => self.scheduled(now, todo),
            _ => {}
        }
    }

    /// One that is due while another is in progress is left out, not made up for.
    fn scheduled(&mut self, now: Duration, todo: &mut Vec<Action>) {
        let first = self.line.is_empty();
        self.due = self.due.and_then(|due| self.next_tick(due, now));
        if self.taking.is_none() && !self.asked {
            self.taking = Some(Taking { asked_by: None, stop: false });
            let trigger = if first { "start" } else { "schedule" };
            todo.push(Action::Checkpoint { trigger, tags: Vec::new(), stop: false });
        }
    }

    /// By the schedule that began `first`. Its times are a calendar's; ours do not jump.
    fn next_tick(&self, first: Duration, now: Duration) -> Option<Duration> {
        let date = |at: Duration| {
            let at = chrono::TimeDelta::from_std(at).ok()?;
            DateTime::<Utc>::UNIX_EPOCH.checked_add_signed(at)
        };
        let next = self.schedule.next(date(first)?, &date(now)?)?;
        (next - DateTime::<Utc>::UNIX_EPOCH).to_std().ok()
    }
}

/// As a shim's death has it.
const KILLED: Ended = Ended { status: 0, signal: 9 };

#[cfg(test)]
mod tests;
