//! What reaches a keeper: from its shim, its worker, its terminal, and commands.
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Bringing;
use super::control::Reply;
use super::link::outer_pids;
use super::shell::{Heard, Shell, now};
use super::terminal::Terminal;
use crate::error::{Error, Result};
use crate::machine::{Ask, Event, Kind};
use crate::wire::{
    AskRollback, Brought, Fault, Files, Obstacle, Resize, Status, Whom, from_keeper, from_shim,
    from_worker, to_keeper, to_shim,
};

/// For how long an end is put down to a `^C` that was typed.
const TYPED: Duration = Duration::from_secs(5);
/// `^C`.
const INTERRUPT: u8 = 3;

impl Shell {
    pub(super) fn hear_out(&mut self, heard: Heard) {
        match heard {
            Heard::Shim(said) => self.hear_shim(said),
            Heard::ShimGone(pid) => self.hear_gone(pid),
            Heard::Progress(progress) => self.tell_progress(progress),
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

    fn hear_gone(&mut self, pid: Pid) {
        if self.link.as_ref().is_none_or(|link| link.shim != pid) {
            return;
        }
        self.link = None;
        self.first = 0;
        if let Some(stranger) = self.stranger {
            self.hear_stranger_end(stranger);
        }
        match self.unrestored.take() {
            Some(why) => self.feed(Event::NotRestored { why }),
            // Its worker is gone too, and will say how that went.
            None if self.restoring => self.early.push(Event::Gone),
            None => self.feed(Event::Gone),
        }
    }

    fn hear_shim(&mut self, said: from_shim::Of) {
        match said {
            from_shim::Of::Status(status) => self.hear_status(&status),
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
            from_shim::Of::Worked(pid) => self.hear_stranger_end(pid),
            from_shim::Of::Stopped(by) if by != 0 => self.stop_too(),
            from_shim::Of::Ended(ended) => {
                // What else could kill it is no answer to a `^C`.
                let by_itself = [0, Signal::SIGINT as i32].contains(&ended.signal);
                if by_itself && self.interrupted.is_some_and(|at| now() - at < TYPED) {
                    self.feed(Event::Interrupted);
                }
                if self.restoring {
                    return self.early.push(Event::Ended(ended));
                }
                self.feed(Event::Ended(ended));
            }
            _ => {}
        }
    }

    fn hear_status(&mut self, status: &Status) {
        let started = self.first == 0 && status.first != 0;
        self.first = status.first;
        // Our own worker says by itself when it has brought the tree back.
        if started && (!self.restoring || self.stranger.is_some()) {
            self.restoring = false;
            self.early.clear();
            self.is_up();
        }
    }

    /// The worker of the keeper before us has ended: what it has done is in the store.
    fn hear_stranger_end(&mut self, pid: i32) {
        if self.stranger != Some(pid) {
            return;
        }
        self.stranger = None;
        let why = "its keeper died, and it came to nothing";
        if self.restoring {
            let event = self.unrestored(&Error::Refused(why.to_owned()));
            return drop(event.map(|event| self.feed(event)));
        }
        let newest = self.book.line(&self.charge.definition.name).unwrap_or_default();
        match newest.last().filter(|seq| !self.machine.knows(**seq)) {
            Some(seq) => self.feed(Event::Checkpointed { seq: *seq }),
            None if self.machine.is_taking() => {
                self.feed(Event::NotCheckpointed { why: why.to_owned() });
            }
            None => {}
        }
    }

    fn is_up(&mut self) {
        self.take_terminal();
        self.feed(Event::Up);
        self.tell_up();
    }

    pub(super) fn take_terminal(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            terminal.take(&self.hear);
        }
        self.resize();
    }

    fn hear_worker(&mut self, mut result: Result<from_worker::Of>) {
        match &mut result {
            Ok(from_worker::Of::Found(found)) => self.give_outer_pids(&mut found.obstacles),
            Err(Error::Told(fault)) => self.give_outer_pids(&mut fault.obstacles),
            _ => {}
        }
        match result {
            Ok(from_worker::Of::Taken(taken)) => {
                self.feed(Event::Checkpointed { seq: taken.seq });
            }
            Ok(from_worker::Of::Brought(brought)) => self.hear_brought(brought),
            Ok(from_worker::Of::Found(found)) => self.found(from_keeper::Of::Found(found)),
            Ok(_) => {}
            Err(error) if self.looking.is_some() => {
                self.found(from_keeper::Of::Refused(Fault::of(&error)));
            }
            Err(error) if self.restoring => {
                let event = self.unrestored(&error);
                drop(event.map(|event| self.feed(event)));
            }
            Err(error) => {
                let event = self.unchecked(&error);
                self.feed(event);
            }
        }
    }

    /// Workers see what the workload sees.
    fn give_outer_pids(&self, obstacles: &mut [Obstacle]) {
        if obstacles.is_empty() {
            return;
        }
        let outer = self.link.as_ref().map(|link| outer_pids(link.shim)).unwrap_or_default();
        for found in obstacles {
            found.pid = outer.get(&found.inner_pid).copied().unwrap_or(0);
        }
    }

    fn hear_brought(&mut self, brought: Brought) {
        self.restoring = false;
        self.first = brought.first;
        let seq = self.machine.restoring();
        self.is_up();
        for note in brought.notes {
            self.record(Kind::Note, seq, &note);
        }
        std::mem::take(&mut self.early).into_iter().for_each(|event| self.feed(event));
    }

    fn found(&mut self, answer: from_keeper::Of) {
        drop(self.looking.take().map(|reply| reply.send(answer)));
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
        self.take_terminal();
        self.signal(Signal::SIGCONT as i32, Whom::Foreground);
    }

    fn resize(&self) {
        let size = self.terminal.as_ref().and_then(Terminal::size);
        if let (Some(size), Some(link)) = (size, &self.link) {
            let resize = Resize { rows: size.rows.into(), columns: size.columns.into() };
            let _ = link.send(to_shim::Of::Resize(resize));
        }
    }

    fn hear_request(&mut self, request: to_keeper::Of, reply: Reply) {
        let ask = match request {
            to_keeper::Of::Status(_) => {
                drop(reply.send(from_keeper::Of::Info(self.info())));
                return;
            }
            to_keeper::Of::Look(_) => return self.hear_look(reply),
            to_keeper::Of::Checkpoint(ask) => Ask::Checkpoint { stop: ask.stop, tags: ask.tags },
            to_keeper::Of::Stop(ask) => {
                Ask::Stop { signal: ask.signal, timeout: Duration::from_millis(ask.timeout_ms) }
            }
            to_keeper::Of::Kill(_) => Ask::Kill,
            to_keeper::Of::Rollback(ask) => self.hear_rollback(ask),
        };
        self.next_reply += 1;
        let id = self.next_reply;
        self.replies.insert(id, reply);
        self.feed(Event::Asked { id, ask });
    }

    fn hear_rollback(&mut self, ask: AskRollback) -> Ask {
        let files = Files::try_from(ask.files).unwrap_or(Files::Default);
        let how = Bringing { from: None, accept_changed: ask.accept_changed, verify: ask.verify };
        self.told = Some((how, files));
        Ask::Rollback { seq: ask.seq }
    }

    /// A worker at a time: while a snapshot is taken, its obstacles are about to be told anyway.
    fn hear_look(&mut self, reply: Reply) {
        let busy = self.machine.state() != "running" || self.looking.is_some();
        let begun = if busy {
            Err(Error::Busy("the workload is being worked on: try again".into()))
        } else {
            self.look()
        };
        match begun {
            Ok(()) => self.looking = Some(reply),
            Err(error) => drop(reply.send(from_keeper::Of::Refused(Fault::of(&error)))),
        }
    }
}
