//! Starting, restoring, taking snapshots, keeping only some of them.
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use super::link::{GoingOn, Link};
use super::shell::{Heard, Shell};
use super::terminal::Terminal;
use super::{Bringing, standard};
use crate::bridge;
use crate::error::{Error, Result, Sort};
use crate::machine::Event;
use crate::wire::{
    Bring, Empty, Fault, Files, Settled, Signal as ToSignal, Take, Whom, to_shim, to_worker,
};

/// How often freeing space is tried again while others are at the store, and how soon.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

impl Shell {
    pub(super) fn restore(&mut self, seq: u64) -> Result<()> {
        drop(self.terminal.as_mut().map(Terminal::give_back));
        let (how, files) = self.how_to_restore();
        let (home, name) = (self.charge.home.clone(), self.charge.definition.name.clone());
        let from = how.from.clone().unwrap_or_else(|| name.clone());
        let mut settled = bridge::settled_at(&home, &from, seq)?;
        if from == name {
            self.book.rewind(&name, Some(seq))?;
        } else {
            self.book.rewind(&name, None)?;
            settled = Settled { log: 0, ..settled };
            bridge::copy_input(&home, &from, &name)?;
        }
        let streams = standard::of(&self.charge.definition, &self.held)?;
        let goes_on = GoingOn { from: Some(settled), input_again: false };
        self.make_shim(goes_on, &streams)?;
        let definition = &self.charge.definition;
        let keep_files = match files {
            Files::Default => definition.keep_files,
            files => files == Files::Keep,
        };
        let force = definition.force_rollback || files == Files::RollBack;
        let bring = Bring {
            dir: home.dir().as_os_str().as_bytes().to_vec(),
            held: if force || keep_files { Vec::new() } else { self.others_write(&from, seq)? },
            name: from,
            seq,
            accept_changed: how.accept_changed,
            verify: how.verify,
            keep_files,
            close_tcp: definition.close_tcp,
            as_name: name,
        };
        self.restoring = true;
        let link = self.link.as_ref().ok_or(Error::Lost("shim"))?;
        link.work(&self.charge.program, to_worker::Of::Bring(bring), self.hear.clone())
    }

    /// As somebody said for this once, else as at the beginning. Another's snapshot is a beginning
    /// only: from then on its own are gone back to.
    fn how_to_restore(&mut self) -> (Bringing, Files) {
        let first = self.charge.bring.clone();
        self.charge.bring.from = None;
        self.told.take().unwrap_or((first, Files::Default))
    }

    pub(super) fn make_shim(&mut self, how: GoingOn, streams: &[OwnedFd]) -> Result<()> {
        let mut link = Link::make(&self.charge, how, streams)?;
        if !self.charge.foreground {
            standard::let_go()?;
        }
        link.listen(self.terminal.is_some(), self.hear.clone())?;
        self.link = Some(link);
        Ok(())
    }

    /// Files that others are writing. Shells that wait for us, and what we hold ourselves, are no
    /// others.
    pub(super) fn others_write(&self, name: &str, seq: u64) -> Result<Vec<Vec<u8>>> {
        let shim = self.link.as_ref().map(|link| link.shim.as_raw());
        let ours = ancestors().into_iter().chain(shim).collect();
        let held = bridge::held_by_others(&self.charge.home, name, seq, &ours)?;
        Ok(held.into_iter().map(|path| path.into_os_string().into_vec()).collect())
    }

    pub(super) fn checkpoint(
        &mut self,
        trigger: &str,
        tags: Vec<String>,
        stop: bool,
    ) -> Result<()> {
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

    pub(super) fn look(&mut self) -> Result<()> {
        let link = self.link.as_ref().ok_or(Error::Lost("shim"))?;
        link.work(&self.charge.program, to_worker::Of::Look(Empty {}), self.hear.clone())
    }

    /// In a thread of its own: removing can take longer than anything else should wait.
    pub(super) fn retain(&self, keep_last: u64) {
        let (home, name) = (self.charge.home.clone(), self.charge.definition.name.clone());
        let hear = self.hear.clone();
        std::thread::spawn(move || {
            let Ok((gone, input)) = bridge::retain(&home, &name, keep_last) else { return };
            let something = !gone.is_empty();
            drop(hear.send(Heard::Retained(gone, input)));
            for _ in 0..TRIES {
                if !something || bridge::free_space(&home).unwrap_or(true) {
                    return;
                }
                std::thread::sleep(PAUSE);
            }
        });
    }

    pub(super) fn unstarted(&mut self, error: Error) -> Event {
        let code = match error.sort() {
            Sort::NotFound => 127,
            Sort::NotExecutable => 126,
            _ => 1,
        };
        self.fault = Some(error);
        Event::NotStarted { code }
    }

    /// A restore has failed: what is left of it goes, and only then something else begins.
    pub(super) fn unrestored(&mut self, error: &Error) -> Option<Event> {
        let fault = Fault::of(error);
        let why = fault.text.clone();
        if error.sort() == Sort::Damaged
            && let Some(seq) = self.machine.restoring()
        {
            let name = &self.charge.definition.name;
            let marked = self.book.store().mark_damaged(name, seq).map_err(Error::from);
            self.or_warn(marked);
        }
        if !self.was_up {
            self.fault = Some(Error::Told(Box::new(fault.clone())));
        }
        self.why = Some(fault);
        self.restoring = false;
        self.early.clear();
        match &self.link {
            Some(link) => {
                self.signal(nix::libc::SIGKILL, Whom::All);
                link.leave();
                self.unrestored = Some(why);
                None
            }
            None => Some(Event::NotRestored { why }),
        }
    }

    pub(super) fn unchecked(&mut self, error: &Error) -> Event {
        // What it had written already is of no use.
        let home = self.charge.home.clone();
        std::thread::spawn(move || drop(bridge::free_space(&home)));
        let fault = Fault::of(error);
        let why = fault.text.clone();
        self.why = Some(fault);
        Event::NotCheckpointed { why }
    }

    pub(super) fn signal(&self, number: i32, whom: Whom) {
        if let Some(link) = &self.link {
            let _ = link.send(to_shim::Of::Signal(ToSignal { number, whom: whom.into() }));
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
