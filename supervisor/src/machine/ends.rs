//! Ends: whether one is a crash, and what comes then.
use std::time::Duration;

use policies::backoff;
use policies::choice::{Choice, RECOVERED};
use policies::restart::{End, Verdict, judge};

use super::{Action, KILLED, Kind, Machine, Next, Outcome, State};
use crate::wire::Ended;

impl Machine {
    pub(super) fn ended(&mut self, ended: Ended, now: Duration, todo: &mut Vec<Action>) {
        if matches!(self.state, State::Ending(_) | State::Over(_) | State::Waiting(..)) {
            return;
        }
        self.code = ended.code();
        self.due = None;
        self.state = State::Ending(self.outcome(ended, now, todo));
    }

    /// What the rest of a tree does that will be brought back is undone: nobody waits until it has
    /// ended by itself.
    pub(super) fn hasten(&self, todo: &mut Vec<Action>) {
        let back = |next| matches!(next, Next::Restore(_) | Next::Fresh { undo: true });
        if matches!(self.state, State::Ending(Outcome::Again(_, next)) if back(next)) {
            todo.push(Action::Kill);
        }
    }

    fn outcome(&mut self, ended: Ended, now: Duration, todo: &mut Vec<Action>) -> Outcome {
        if let Some(it) = self.rollback {
            return Outcome::Again(Duration::ZERO, Next::Restore(it.seq));
        }
        let how = describe(ended);
        let end =
            if ended.signal == 0 { End::Exited(ended.status) } else { End::Killed(ended.signal) };
        let verdict = judge(end, self.asked, self.options.restart);
        let kind = match verdict {
            Verdict::Stopped => Kind::Stopped,
            Verdict::Finished | Verdict::StartAfresh => Kind::Finished,
            Verdict::Crashed | Verdict::Recover => Kind::Crashed,
        };
        todo.push(Action::record(kind, None, &how));
        match verdict {
            Verdict::Stopped => Outcome::Stopped,
            Verdict::Finished => Outcome::Finished,
            Verdict::Crashed => Outcome::Failed,
            Verdict::Recover => self.recover(now.saturating_sub(self.up_at), now, todo),
            Verdict::StartAfresh => self.again(Next::Fresh { undo: false }, now, todo),
        }
    }

    /// After a crash, or after a restore that failed.
    fn recover(&mut self, lived: Duration, now: Duration, todo: &mut Vec<Action>) -> Outcome {
        let (choice, reason) = self.recovery.crashed(lived, &self.line);
        if lived >= RECOVERED {
            self.tries = 0;
        }
        match choice {
            Choice::Restore(seq) => self.again(Next::Restore(seq), now, todo),
            Choice::StepBack(seq) => {
                todo.push(Action::record(Kind::SteppedBack, Some(seq), reason.as_str()));
                self.again(Next::Restore(seq), now, todo)
            }
            Choice::Fresh => self.again(Next::Fresh { undo: true }, now, todo),
            Choice::Fail => self.fail(reason.as_str(), todo),
        }
    }

    /// After a pause, unless it was started too often.
    fn again(&mut self, next: Next, now: Duration, todo: &mut Vec<Action>) -> Outcome {
        if self.starts.another(now, self.options.limit) {
            let limit = self.options.limit;
            let (starts, within) = (limit.starts, limit.within.as_secs_f64());
            let why = format!("it was started again more than {starts} times in {within} s");
            return self.fail(&why, todo);
        }
        let pause = backoff::pause(self.tries);
        self.tries = self.tries.saturating_add(1);
        let why = format!("for {} ms", pause.as_millis());
        todo.push(Action::record(Kind::Backoff, None, &why));
        Outcome::Again(pause, next)
    }

    fn fail(&mut self, why: &str, todo: &mut Vec<Action>) -> Outcome {
        todo.push(Action::record(Kind::Failed, None, why));
        if self.code == 0 {
            self.code = 1;
        }
        Outcome::Failed
    }

    /// Nothing of the tree is left: the next thing can begin.
    pub(super) fn gone(&mut self, now: Duration, todo: &mut Vec<Action>) {
        if !matches!(self.state, State::Ending(_) | State::Over(_) | State::Waiting(..)) {
            // Without having ended: it died with its shim.
            self.ended(KILLED, now, todo);
        }
        match self.state {
            State::Ending(Outcome::Again(pause, next)) => {
                self.state = State::Waiting(now + pause, next);
                if self.asked && self.rollback.is_none() {
                    self.over(Outcome::Stopped, todo);
                }
            }
            State::Ending(outcome) => self.over(outcome, todo),
            _ => {}
        }
    }

    pub(super) fn not_restored(&mut self, why: &str, now: Duration, todo: &mut Vec<Action>) {
        let State::Restoring(seq) = self.state else { return };
        match self.rollback {
            // It was cut short for another one.
            Some(other) if !other.begun => {
                self.state = State::Waiting(now, Next::Restore(other.seq));
                return;
            }
            Some(failed) => {
                self.rollback = None;
                todo.push(Action::refuse(failed.asked_by, why));
            }
            None => {}
        }
        todo.push(Action::record(Kind::RestoreFailed, Some(seq), why));
        if self.asked {
            return self.over(Outcome::Stopped, todo);
        }
        if self.recovery.tries() == 0 {
            // Asked for by a person, who should decide what is next.
            self.code = 1;
            return self.over(Outcome::Stopped, todo);
        }
        match self.recover(Duration::ZERO, now, todo) {
            Outcome::Again(pause, next) => self.state = State::Waiting(now + pause, next),
            outcome => self.over(outcome, todo),
        }
    }

    pub(super) fn over(&mut self, outcome: Outcome, todo: &mut Vec<Action>) {
        self.state = State::Over(outcome);
        self.kill_at = None;
        let answered: Vec<_> = self.stoppers.drain(..).collect();
        todo.extend(answered.into_iter().map(|id| Action::answer(id, None)));
        let late: Vec<_> = self.waiting.drain(..).map(|(id, _)| id).collect();
        let asked_by = self.taking.take().and_then(|taking| taking.asked_by);
        let late = late.into_iter().chain(asked_by).chain(self.rollback.map(|it| it.asked_by));
        todo.extend(late.map(|id| Action::refuse(id, "the workload has ended")));
        todo.push(Action::Exit { code: self.code });
    }
}

fn describe(ended: Ended) -> String {
    match ended {
        Ended { signal: 0, status } => format!("exited with status {status}"),
        Ended { signal, .. } => format!("killed by signal {signal}"),
    }
}
