//! The keeper's decisions, as a pure function: what happened and when, to what is to be done.
//!
//! No I/O and no clock: time comes with each event, as time since some beginning. [`recovery`] says
//! what a crash leads to. The shell around it ([`crate::keeper`]) performs the actions and reports
//! how they went as further events.
mod action;
mod event;
pub mod recovery;

use std::time::Duration;

pub use self::action::{Action, Kind};
pub use self::event::{Ask, Begin, Event, Options};
use self::recovery::{Next, Recovery};
use crate::definition::Restart;
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
    /// Up since then.
    Running(Duration),
    /// Waiting to be brought back.
    Waiting(Duration, Next),
    /// It ended, and its tree is being cleared away; then this.
    Ending(Outcome),
    /// Over, or not begun.
    Over(Outcome),
}

/// How it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Finished,
    Stopped,
    Failed,
    Again(Next),
}

/// A snapshot that is being taken, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Taking {
    asked_by: Option<u64>,
    stop: bool,
}

/// One workload's keeper.
#[derive(Debug)]
pub struct Machine {
    options: Options,
    state: State,
    recovery: Recovery,
    taking: Option<Taking>,
    /// Requests that wait for the snapshot in progress.
    waiting: Vec<(u64, Ask)>,
    /// When the next snapshot is due.
    due: Option<Duration>,
    /// Somebody asked for the end; those who wait for it, and when patience ends.
    asked: bool,
    stoppers: Vec<u64>,
    kill_at: Option<Duration>,
    rolled_back: Option<(u64, u64)>,
    code: i32,
}

impl Machine {
    /// Of a workload with these snapshots on its current line, oldest first.
    #[must_use]
    pub fn new(options: Options, line: Vec<u64>) -> Self {
        Self {
            recovery: Recovery::new(line, options.restart_limit, options.restart_window),
            options,
            state: State::Over(Outcome::Finished),
            taking: None,
            waiting: Vec::new(),
            due: None,
            asked: false,
            stoppers: Vec::new(),
            kill_at: None,
            rolled_back: None,
            code: 0,
        }
    }

    /// What to do now.
    pub fn on(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let mut todo = Vec::new();
        match event {
            Event::Begin(how) => self.begin(how, now, &mut todo),
            Event::Up => self.up(now, &mut todo),
            Event::NotStarted { code } => self.not_started(code, &mut todo),
            Event::NotRestored { why } => self.not_restored(&why, now, &mut todo),
            Event::Ended(ended) => self.ended(ended, now, &mut todo),
            Event::Gone => self.gone(now, &mut todo),
            Event::Checkpointed { seq } => self.checkpointed(seq, now, &mut todo),
            Event::NotCheckpointed { why } => self.not_checkpointed(&why, &mut todo),
            Event::Forgotten { seq } => self.recovery.forget(seq),
            Event::Interrupted => self.asked = true,
            Event::Asked { id, ask } => self.asked_for(id, ask, now, &mut todo),
            Event::Tick => {}
        }
        self.what_is_due(now, &mut todo);
        todo
    }

    /// When to come back with [`Event::Tick`], if nothing happens before.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        let waiting = match self.state {
            State::Waiting(until, _) => Some(until),
            State::Running(_) if self.taking.is_none() => self.due,
            _ => None,
        };
        waiting.into_iter().chain(self.kill_at).min()
    }

    /// The word for what it is doing.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self.state {
            State::Starting => "starting",
            State::Restoring(_) => "restoring",
            State::Running(_) if self.taking.is_some() => "checkpointing",
            State::Running(_) => "running",
            State::Waiting(..) => "backoff",
            State::Ending(Outcome::Again(_)) => "backoff",
            State::Ending(how) | State::Over(how) => match how {
                Outcome::Failed => "failed",
                Outcome::Stopped => "stopped",
                Outcome::Finished | Outcome::Again(_) => "finished",
            },
        }
    }

    /// When the next snapshot is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.due
    }

    fn begin(&mut self, how: Begin, now: Duration, todo: &mut Vec<Action>) {
        match how {
            Begin::Fresh => {
                self.recovery.start_line();
                self.start_fresh(todo);
            }
            Begin::Restore(seq) => {
                self.recovery.go_back_to(seq);
                self.restore(seq, todo);
            }
            Begin::Running => {
                todo.push(Action::record(Kind::KeeperStarted, None, "the workload runs on"));
                self.state = State::Running(now);
                self.due = self.options.every.map(|every| now + every);
            }
            Begin::Recover(ended) => {
                todo.push(Action::record(Kind::KeeperStarted, None, "the workload has ended"));
                self.state = State::Running(now);
                self.ended(ended.unwrap_or(Ended { status: 0, signal: KILL }), now, todo);
                self.gone(now, todo);
            }
        }
    }

    fn start_fresh(&mut self, todo: &mut Vec<Action>) {
        self.state = State::Starting;
        todo.push(Action::StartFresh);
    }

    fn restore(&mut self, seq: u64, todo: &mut Vec<Action>) {
        self.state = State::Restoring(seq);
        todo.push(Action::Restore { seq });
    }

    fn up(&mut self, now: Duration, todo: &mut Vec<Action>) {
        match self.state {
            State::Starting => {
                self.due = self.options.every.map(|_| now + FIRST);
                todo.push(Action::record(Kind::Started, None, "it runs"));
            }
            State::Restoring(seq) => {
                self.due = self.options.every.map(|every| now + every);
                let rolled_back = self.rolled_back.take();
                let kind = if rolled_back.is_some() { Kind::RolledBack } else { Kind::Restored };
                todo.push(Action::record(kind, Some(seq), "it runs again"));
                todo.extend(rolled_back.map(|(id, seq)| Action::answer(id, Some(seq))));
            }
            _ => return,
        }
        self.state = State::Running(now);
        self.recovery.up(now);
        if self.asked {
            todo.push(Action::Kill);
        }
    }

    fn not_started(&mut self, code: i32, todo: &mut Vec<Action>) {
        self.code = code;
        todo.push(Action::record(Kind::Failed, None, "it could not be started"));
        self.over(Outcome::Failed, todo);
    }

    fn not_restored(&mut self, why: &str, now: Duration, todo: &mut Vec<Action>) {
        let State::Restoring(seq) = self.state else { return };
        todo.push(Action::record(Kind::RestoreFailed, Some(seq), why));
        if let Some((id, _)) = self.rolled_back.take() {
            todo.push(Action::refuse(id, why));
        }
        if !self.recovery.in_episode() {
            // Asked for by a person, who should decide what is next.
            self.code = 1;
            return self.over(Outcome::Stopped, todo);
        }
        let next = self.recovery.not_restored(now);
        self.go_on(next, now, todo);
    }

    fn ended(&mut self, ended: Ended, now: Duration, todo: &mut Vec<Action>) {
        if matches!(self.state, State::Ending(_) | State::Over(_) | State::Waiting(..)) {
            return;
        }
        self.code = ended.code();
        self.due = None;
        let outcome = self.outcome(ended, now, todo);
        self.state = State::Ending(outcome);
    }

    fn outcome(&mut self, ended: Ended, now: Duration, todo: &mut Vec<Action>) -> Outcome {
        if let Some((_, seq)) = self.rolled_back {
            return Outcome::Again(Next::Restore { seq, back: 0, pause: Duration::ZERO });
        }
        let how = describe(ended);
        if self.asked {
            todo.push(Action::record(Kind::Stopped, None, &how));
            return Outcome::Stopped;
        }
        if is_normal(ended) {
            todo.push(Action::record(Kind::Finished, None, &how));
            if self.options.restart == Restart::Always {
                let pause = self.recovery.pause(now);
                return pause.map_or(Outcome::Failed, |p| Outcome::Again(Next::Fresh { pause: p }));
            }
            return Outcome::Finished;
        }
        todo.push(Action::record(Kind::Crashed, None, &how));
        if self.options.restart == Restart::No {
            return Outcome::Failed;
        }
        match self.recovery.crashed(now) {
            Next::Fail { .. } => Outcome::Failed,
            next => Outcome::Again(next),
        }
    }

    /// Nothing of the tree is left: the next thing can begin.
    fn gone(&mut self, now: Duration, todo: &mut Vec<Action>) {
        if !matches!(self.state, State::Ending(_) | State::Over(_) | State::Waiting(..)) {
            // Without having ended: it died with its shim.
            self.ended(Ended { status: 0, signal: KILL }, now, todo);
        }
        if let State::Ending(outcome) = self.state {
            match outcome {
                Outcome::Again(next) => self.go_on(next, now, todo),
                Outcome::Failed if self.options.restart != Restart::No => {
                    let why = "it crashed too often";
                    todo.push(Action::record(Kind::Failed, None, why));
                    self.over(outcome, todo);
                }
                Outcome::Finished | Outcome::Stopped | Outcome::Failed => self.over(outcome, todo),
            }
        }
    }

    fn go_on(&mut self, next: Next, now: Duration, todo: &mut Vec<Action>) {
        let pause = match next {
            Next::Restore { pause, .. } | Next::Fresh { pause } => pause,
            Next::Fail { why } => {
                todo.push(Action::record(Kind::Failed, None, why));
                if self.code == 0 {
                    self.code = 1;
                }
                return self.over(Outcome::Failed, todo);
            }
        };
        if let Next::Restore { seq, back: 1.., .. } = next {
            todo.push(Action::record(Kind::SteppedBack, Some(seq), "the newer one crashed again"));
        }
        if pause > Duration::ZERO {
            let why = format!("for {} ms", pause.as_millis());
            todo.push(Action::record(Kind::Backoff, None, &why));
        }
        self.state = State::Waiting(now + pause, next);
    }

    fn over(&mut self, outcome: Outcome, todo: &mut Vec<Action>) {
        self.state = State::Over(outcome);
        self.kill_at = None;
        let answered: Vec<_> = self.stoppers.drain(..).collect();
        todo.extend(answered.into_iter().map(|id| Action::answer(id, None)));
        let late: Vec<_> = self.waiting.drain(..).map(|(id, _)| id).collect();
        todo.extend(late.into_iter().map(|id| Action::refuse(id, "the workload has ended")));
        if let Some(Taking { asked_by: Some(id), stop: false }) = self.taking.take() {
            todo.push(Action::refuse(id, "the workload has ended"));
        }
        todo.push(Action::Exit { code: self.code });
    }

    fn checkpointed(&mut self, seq: u64, now: Duration, todo: &mut Vec<Action>) {
        self.recovery.add(seq, now);
        todo.push(Action::record(Kind::Checkpointed, Some(seq), "it is durable"));
        let Some(taking) = self.taking.take() else { return };
        todo.extend(taking.asked_by.map(|id| Action::answer(id, Some(seq))));
        if taking.stop {
            self.asked = true;
        }
        todo.push(Action::Retain { keep_last: self.options.keep_last });
        self.next_in_line(now, todo);
    }

    fn not_checkpointed(&mut self, why: &str, todo: &mut Vec<Action>) {
        todo.push(Action::record(Kind::CheckpointFailed, None, why));
        let Some(taking) = self.taking.take() else { return };
        todo.extend(taking.asked_by.map(|id| Action::refuse(id, why)));
    }

    fn next_in_line(&mut self, now: Duration, todo: &mut Vec<Action>) {
        if !self.waiting.is_empty() {
            let (id, ask) = self.waiting.remove(0);
            self.asked_for(id, ask, now, todo);
        }
    }

    fn asked_for(&mut self, id: u64, ask: Ask, now: Duration, todo: &mut Vec<Action>) {
        let running = matches!(self.state, State::Running(_));
        match ask {
            Ask::Checkpoint { .. } if !running => {
                todo.push(Action::refuse(id, "the workload is not running"));
            }
            Ask::Checkpoint { .. } if self.taking.is_some() => self.waiting.push((id, ask)),
            Ask::Checkpoint { stop, tags } => {
                self.taking = Some(Taking { asked_by: Some(id), stop });
                todo.push(Action::Checkpoint { trigger: "request", tags, stop });
            }
            Ask::Stop { signal, timeout } => {
                self.asked = true;
                self.stoppers.push(id);
                match self.state {
                    State::Running(_) => {
                        self.kill_at = Some(now + timeout);
                        todo.push(Action::Signal { number: signal });
                    }
                    State::Waiting(..) => self.over(Outcome::Stopped, todo),
                    _ => {}
                }
            }
            Ask::Kill => {
                self.asked = true;
                self.stoppers.push(id);
                match self.state {
                    State::Waiting(..) => self.over(Outcome::Stopped, todo),
                    _ => todo.push(Action::Kill),
                }
            }
            Ask::Rollback { seq } => self.roll_back(id, seq, now, todo),
        }
    }

    fn roll_back(&mut self, id: u64, seq: u64, now: Duration, todo: &mut Vec<Action>) {
        self.recovery.go_back_to(seq);
        self.rolled_back = Some((id, seq));
        let next = Next::Restore { seq, back: 0, pause: Duration::ZERO };
        match self.state {
            State::Waiting(..) => self.state = State::Waiting(now, next),
            _ => todo.push(Action::Kill),
        }
    }

    /// What time alone brings.
    fn what_is_due(&mut self, now: Duration, todo: &mut Vec<Action>) {
        if self.kill_at.is_some_and(|at| now >= at) {
            self.kill_at = None;
            todo.push(Action::Kill);
        }
        match self.state {
            State::Waiting(until, next) if now >= until => match next {
                Next::Restore { seq, .. } => self.restore(seq, todo),
                Next::Fresh { .. } => {
                    todo.push(Action::record(
                        Kind::StartedFresh,
                        None,
                        "no snapshot is left to try",
                    ));
                    self.start_fresh(todo);
                }
                Next::Fail { .. } => self.over(Outcome::Failed, todo),
            },
            State::Running(_) if self.due.is_some_and(|due| now >= due) => {
                self.scheduled(now, todo)
            }
            _ => {}
        }
    }

    /// One that is due while another is in progress is left out, not made up for.
    fn scheduled(&mut self, now: Duration, todo: &mut Vec<Action>) {
        let first = self.recovery.is_new_line();
        self.due = self.options.every.map(|every| now + every);
        if self.taking.is_none() && !self.asked {
            self.taking = Some(Taking { asked_by: None, stop: false });
            let trigger = if first { "start" } else { "schedule" };
            todo.push(Action::Checkpoint { trigger, tags: Vec::new(), stop: false });
        }
    }
}

/// `SIGKILL` and those whose death systemd's Restart=on-failure takes for a normal end.
const KILL: i32 = 9;
const NORMAL: [i32; 4] = [1, 2, 13, 15];

fn is_normal(ended: Ended) -> bool {
    if ended.signal == 0 { ended.status == 0 } else { NORMAL.contains(&ended.signal) }
}

fn describe(ended: Ended) -> String {
    match ended {
        Ended { signal: 0, status } => format!("exited with status {status}"),
        Ended { signal, .. } => format!("killed by signal {signal}"),
    }
}

#[cfg(test)]
mod tests;
