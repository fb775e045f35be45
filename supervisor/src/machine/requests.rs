//! What commands ask for.
use std::time::Duration;

use policies::choice::Recovery;

use super::{Action, Ask, Machine, Next, Outcome, Rollback, State, Taking};

impl Machine {
    pub(super) fn asked_for(&mut self, id: u64, ask: Ask, now: Duration, todo: &mut Vec<Action>) {
        match ask {
            Ask::Checkpoint { .. } => self.checkpoint(id, ask, todo),
            Ask::Stop { signal, timeout } => {
                let by_signal = Action::Signal { number: signal };
                self.end(id, by_signal, Some(now + timeout), todo);
            }
            Ask::Kill => self.end(id, Action::Kill, None, todo),
            Ask::Rollback { seq } => self.roll_back(id, seq, now, todo),
        }
    }

    /// One at a time; and a workload that is about to run again is waited for.
    fn checkpoint(&mut self, id: u64, ask: Ask, todo: &mut Vec<Action>) {
        let Ask::Checkpoint { stop, ref tags } = ask else { return };
        match self.state {
            State::Running if self.taking.is_none() => {
                let tags = tags.clone();
                self.taking = Some(Taking { asked_by: Some(id), stop });
                todo.push(Action::Checkpoint { trigger: "request", tags, stop });
            }
            State::Over(_) | State::Ending(Outcome::Finished | Outcome::Failed) => {
                todo.push(Action::refuse(id, "the workload has ended"));
            }
            _ => self.waiting.push((id, ask)),
        }
    }

    pub(super) fn next_in_line(&mut self, now: Duration, todo: &mut Vec<Action>) {
        if self.state == State::Running && self.taking.is_none() && !self.waiting.is_empty() {
            let (id, ask) = self.waiting.remove(0);
            self.asked_for(id, ask, now, todo);
        }
    }

    fn end(&mut self, id: u64, by: Action, kill_at: Option<Duration>, todo: &mut Vec<Action>) {
        self.asked = true;
        self.stoppers.push(id);
        match self.state {
            State::Waiting(..) => self.over(Outcome::Stopped, todo),
            State::Running => {
                self.kill_at = kill_at;
                todo.push(by);
            }
            // Nobody is there yet who would listen.
            State::Starting | State::Restoring(_) => todo.push(Action::Kill),
            State::Ending(_) => self.kill_at = kill_at,
            State::Over(_) => {}
        }
    }

    fn roll_back(&mut self, id: u64, seq: u64, now: Duration, todo: &mut Vec<Action>) {
        if let Some(earlier) = self.rollback {
            todo.push(Action::refuse(earlier.asked_by, "another roll back was asked for"));
        }
        let newest = self.line.first().copied().unwrap_or(0).max(seq);
        self.recovery = Recovery::of_restored(seq, newest);
        self.rollback = Some(Rollback { asked_by: id, seq, begun: false });
        match self.state {
            State::Waiting(..) => self.state = State::Waiting(now, Next::Restore(seq)),
            State::Ending(_) => {
                self.state = State::Ending(Outcome::Again(Duration::ZERO, Next::Restore(seq)));
            }
            State::Over(_) => {}
            _ => todo.push(Action::Kill),
        }
    }
}
