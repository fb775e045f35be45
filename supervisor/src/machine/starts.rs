//! Beginnings: of a keeper, and of each run of its workload.
use std::time::Duration;

use policies::choice::Recovery;

use super::{Action, Begin, FIRST, KILLED, Kind, Machine, Met, Outcome, State, Taking};

impl Machine {
    pub(super) fn begin(&mut self, how: Begin, now: Duration, todo: &mut Vec<Action>) {
        match how {
            Begin::Fresh => {
                self.recovery = Recovery::default();
                self.start_fresh(false, todo);
            }
            Begin::Restore(seq) => {
                let newest = self.line.first().copied().unwrap_or(0).max(seq);
                self.recovery = match self.options.copy_of {
                    Some(_) => {
                        self.line.clear();
                        Recovery::default()
                    }
                    None => Recovery::of_restored(seq, newest),
                };
                self.restore(seq, todo);
            }
            Begin::Running(met) => {
                todo.push(Action::record(Kind::KeeperStarted, None, "the workload runs on"));
                self.meet(met, now);
            }
            Begin::Recover { ended, asked, lived } => {
                todo.push(Action::record(Kind::KeeperStarted, None, "the workload has ended"));
                (self.asked, self.state) = (asked, State::Running);
                self.up_at = now.saturating_sub(lived);
                self.ended(ended.unwrap_or(KILLED), now, todo);
                self.gone(now, todo);
            }
        }
    }

    /// A workload that has gone on without a keeper.
    fn meet(&mut self, met: Met, now: Duration) {
        self.asked = met.asked;
        self.up_at = now.saturating_sub(met.lived);
        self.state = met.restoring.map_or(State::Running, State::Restoring);
        if met.restoring.is_none() && met.at_work {
            self.taking = Some(Taking { asked_by: None, stop: false });
        }
        // By when the last one was taken, or keepers that die often would never take any.
        let since = met.since_snapshot.unwrap_or(met.lived);
        self.due = self.options.every.map(|every| (now + every).saturating_sub(since).max(now));
    }

    pub(super) fn start_fresh(&mut self, undo: bool, todo: &mut Vec<Action>) {
        self.line.clear();
        self.state = State::Starting;
        todo.push(Action::StartFresh { undo });
    }

    /// What came after this snapshot is on another line now.
    pub(super) fn restore(&mut self, seq: u64, todo: &mut Vec<Action>) {
        self.line.retain(|one| *one <= seq);
        self.state = State::Restoring(seq);
        todo.push(Action::Restore { seq });
    }

    pub(super) fn up(&mut self, now: Duration, todo: &mut Vec<Action>) {
        match self.state {
            State::Starting => {
                self.due = self.options.every.map(|_| now + FIRST);
                todo.push(Action::record(Kind::Started, None, "it runs"));
            }
            State::Restoring(seq) => {
                let rolled_back = self.rollback.take();
                let kind = if rolled_back.is_some() { Kind::RolledBack } else { Kind::Restored };
                if let Some(from) = self.options.copy_of.take() {
                    // It has no snapshot of its own to go back to: there has to be one soon.
                    self.due = Some(now + FIRST);
                    let why = format!("it runs, a copy of {from}@{seq}");
                    todo.push(Action::record(kind, None, &why));
                } else {
                    self.due = self.next_tick(now, now);
                    todo.push(Action::record(kind, Some(seq), "it runs again"));
                }
                todo.extend(rolled_back.map(|it| Action::answer(it.asked_by, Some(seq))));
            }
            _ => return,
        }
        (self.state, self.up_at) = (State::Running, now);
        if self.asked {
            todo.push(Action::Kill);
        }
        self.next_in_line(now, todo);
    }

    pub(super) fn not_started(&mut self, code: i32, todo: &mut Vec<Action>) {
        self.code = code;
        todo.push(Action::record(Kind::Failed, None, "it could not be started"));
        self.over(Outcome::Failed, todo);
    }
}
