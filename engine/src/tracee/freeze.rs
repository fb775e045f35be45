//! Stopping a forest: one loop over events, to a fixpoint over threads and children.
//!
//! A round attaches to every thread that is new, waits until all stand, and then looks for children of
//! those that stand. Parents stand before their children are looked for, so nobody outruns us by
//! forking, and a child whose parent waits for it in vfork(2) still runs while we wait for the parent.
//! Signals that are about to be delivered are delivered; what comes later stays pending.
//!
//! An exec(2) makes all other threads vanish and gives the survivor the process's number. Therefore no
//! wait here is for one thread alone, and a second OS thread reaps while we attach (`reaper`).
mod attach;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;

use super::asleep::{Asleep, Clocks, monotonic};
use super::procfs::{self, Stat, Status};
use super::reaper::Reaper;
use super::refuse::{self, refused};
use super::walkout::Walkout;
use super::{Member, Task};
use crate::arch::receive::may_receive;
use crate::arch::{Interrupted, RegisterFile, may_wait};
use crate::cgroup;
use crate::error::{Error, Result, kernel};
use crate::inventory::{Life, Pid, Tid};
use crate::sys::ptrace::{self, event, option};
use crate::sys::wait::{self, Change};

/// What follows a thread: its forks, its clones, its exec.
pub(super) const OPTIONS: u64 =
    option::SYSGOOD | option::FORK | option::VFORK | option::CLONE | option::EXEC;
/// How often to look again without a pause, before looking after a [`PAUSE`].
const EAGER_LOOKS: u32 = 3;
const PAUSE: Duration = Duration::from_micros(20);
/// What it takes a thread to stop, about.
const STOPPING: Duration = Duration::from_nanos(500);
/// After so many that have not stopped, the others are looked at only now and then.
const MISSES: u32 = 8;
const LOOKS_AT_ALL: u32 = 4;
/// The longest pause: who does not stop soon waits for a processor, and not for us to take it.
const LONGEST_PAUSE: Duration = Duration::from_micros(640);
/// Threads that only wait for a processor are given so many times the limit: a busy machine is no
/// reason to give up, whoever sleeps where no signal wakes it is.
const BUSY_TIMES: u32 = 10;
/// So many are asked for their children without thinking about it.
const FEW_TASKS: usize = 64;
/// So often nothing has happened: time to ask whether those we wait for are still ours.
const LOOKS_IN_VAIN: u32 = 50;

/// Who the roots are, asked anew in each round: orphans may become roots meanwhile.
pub(super) type Roots<'a> = &'a mut dyn FnMut() -> Result<Vec<Pid>>;

/// A forest on its way to a standstill.
#[derive(Debug)]
pub(super) struct Freezer {
    /// All processes, with their parents of the forest.
    processes: BTreeMap<Pid, Option<Pid>>,
    /// Those that were dead when we came.
    zombies: BTreeMap<Pid, i32>,
    /// All threads we are attached to.
    pub(super) tasks: BTreeMap<Tid, Task>,
    /// When the first was about to be attached to.
    pub(super) since: Option<i64>,
    /// How often one came or went.
    changes: u64,
    walkout: Walkout,
    reaper: Reaper,
    clocks: Clocks,
    denied: BTreeMap<Tid, u32>,
    /// Control groups that are not frozen, as /proc tells them; ours first.
    thawed: Vec<String>,
    /// Children of vfork(2) that we have seen born, with their makers.
    vforks: BTreeMap<Tid, Tid>,
    /// How many have been waited for at once.
    mended: u32,
    until: Instant,
    /// Whatever happens, no longer than this.
    at_most: Instant,
}

/// Has everybody below the roots stand.
#[tracing::instrument(level = "trace", skip_all)]
pub(super) fn freeze(roots: Roots<'_>, within: Duration) -> Result<Freezer> {
    let (until, at_most) = (now() + within, now() + within * BUSY_TIMES);
    let (processes, zombies, tasks) = Default::default();
    let (walkout, reaper, clocks, denied, vforks, mended, changes) = Default::default();
    let thawed = vec![cgroup::read("/proc/self/cgroup")?];
    let mut freezer = Freezer {
        processes,
        zombies,
        tasks,
        since: None,
        changes,
        walkout,
        reaper,
        clocks,
        denied,
        thawed,
        vforks,
        mended,
        until,
        at_most,
    };
    match freezer.to_standstill(roots) {
        Ok(()) => Ok(freezer),
        Err(error) => {
            freezer.let_go();
            Err(error)
        }
    }
}

fn now() -> Instant {
    Instant::now()
}

impl Freezer {
    fn to_standstill(&mut self, roots: Roots<'_>) -> Result<()> {
        let mut asked = None;
        loop {
            let mut news = false;
            for root in roots()? {
                news |= self.add(root, None)?;
            }
            for pid in self.processes.keys().copied().collect::<Vec<_>>() {
                news |= self.attach_all(pid)?;
            }
            self.wait_for_all()?;
            // Who stands has no new children, unless somebody has died, whose own are now theirs.
            let now = Some((self.processes.len(), self.changes));
            if std::mem::replace(&mut asked, now) != now {
                news |= self.add_children()?;
            }
            if !news && !self.forget_replaced() {
                return Ok(());
            }
        }
    }

    fn add_children(&mut self) -> Result<bool> {
        let mut news = false;
        for (child, parent) in self.children() {
            news |= self.add(child, Some(parent))?;
        }
        Ok(news)
    }

    /// The children of all that stand: each thread is asked for its own, or each process for its parent, if
    /// there are fewer of these.
    fn children(&self) -> Vec<(Pid, Pid)> {
        let is_ours = |(_, parent): &(Pid, Pid)| self.processes.contains_key(parent);
        if self.tasks.len() > FEW_TASKS {
            let all = procfs::processes();
            if all.len() < self.tasks.len() {
                let of = |pid: Pid| Some((pid, Stat::of(Tid(pid.0)).parent()?));
                return all.into_iter().filter_map(of).filter(is_ours).collect();
            }
        }
        let of = |(tid, task): (&Tid, &Task)| {
            let children = procfs::children(task.pid, *tid).into_iter();
            let pid = task.pid;
            children.map(move |child| (child, pid)).collect::<Vec<_>>()
        };
        self.tasks.iter().flat_map(of).collect()
    }

    /// An exec(2) of a thread that we had not attached to puts it in the place of one that stood: a
    /// thread of the same number that does not obey us.
    fn forget_replaced(&mut self) -> bool {
        self.keep(|tid, _| ptrace::event_message(tid.0).is_ok())
    }

    /// Likewise, one that we wait for in vain, because it is our own child besides.
    fn forget_untraced(&mut self) {
        let us = nix::unistd::gettid().as_raw();
        let ours = |tid: &Tid| Status::of(*tid).number("TracerPid") == Some(us);
        self.keep(|tid, task| task.stands || ours(tid));
    }

    /// Notes one that we are attached to.
    fn attached(&mut self, pid: Pid, tid: Tid, asleep: Option<Asleep>) {
        self.reaper.attached(pid, tid);
        self.tasks.entry(tid).or_insert(Task { asleep, ..Task::running(pid) });
        self.changes += 1;
    }

    /// Forgets all others; whether there were any.
    fn keep(&mut self, which: impl Fn(&Tid, &Task) -> bool) -> bool {
        let before = self.tasks.len();
        self.tasks.retain(|tid, task| which(tid, task));
        let fewer = self.tasks.len() < before;
        self.changes += u64::from(fewer);
        fewer
    }

    fn running(&self) -> Vec<Tid> {
        self.tasks.iter().filter(|(_, task)| !task.stands).map(|(tid, _)| *tid).collect()
    }

    fn wait_for_all(&mut self) -> Result<()> {
        let mut looks = 0;
        loop {
            let running = self.running();
            if running.is_empty() {
                return Ok(());
            }
            if let Some(late) = self.too_late(&running) {
                let pid = self.tasks.get(&late).map_or(Pid(late.0), |task| task.pid);
                return Err(refused(pid, late, refuse::TIMEOUT));
            }
            let mut news = false;
            // Those that come first stop first: who looks at all of a thousand does nothing else.
            let (mut in_vain, all) = (0, looks % LOOKS_AT_ALL == LOOKS_AT_ALL - 1);
            let count = running.len();
            for tid in running {
                let done = self.look(tid)?;
                news |= done;
                in_vain = if done { 0 } else { in_vain + 1 };
                if in_vain > MISSES && !all {
                    break;
                }
            }
            self.interrupt_walkers()?;
            looks = if news { 0 } else { looks + 1 };
            if looks > EAGER_LOOKS {
                std::thread::sleep(pause(looks - EAGER_LOOKS, count));
            }
            if looks % LOOKS_IN_VAIN == LOOKS_IN_VAIN - 1 {
                self.forget_untraced();
                for tid in self.tasks.keys().copied().collect::<Vec<_>>() {
                    self.look(tid)?; // Whoever stood may have been ended by an exec(2).
                }
                for tid in self.running() {
                    if !self.is_waited_for(tid) && !self.walkout.is_waited_for(tid) {
                        interrupt(tid)?; // The first one may have met its predecessor.
                    }
                }
            }
        }
    }

    /// Who was in an old cave and has had a moment to leave it has to stop again.
    fn interrupt_walkers(&mut self) -> Result<()> {
        let walkers = self.walkout.have_gone_on();
        if !walkers.is_empty() {
            std::thread::sleep(PAUSE);
        }
        walkers.into_iter().try_for_each(interrupt)
    }

    /// Whom there is no more waiting for, if the time is up.
    fn too_late(&self, running: &[Tid]) -> Option<Tid> {
        let now = now();
        if now <= self.until {
            return None;
        }
        let mut deaf = running.iter().filter(|tid| Stat::of(**tid).state() == "D");
        let first = running.first().filter(|_| now > self.at_most);
        deaf.next().or(first).copied()
    }

    /// Deals with what a thread did, if it did anything.
    fn look(&mut self, tid: Tid) -> Result<bool> {
        match wait::poll(tid.0) {
            Ok(None) => return Ok(false),
            Ok(Some(change)) => self.on(tid, change)?,
            // Reaped by the other OS thread, or it has taken its process's number by exec(2).
            Err(Errno::ECHILD) => drop(self.keep(|other, _| *other != tid)),
            Err(errno) => return Err(Error::Kernel("waitpid", errno)),
        }
        Ok(true)
    }

    fn on(&mut self, tid: Tid, change: Change) -> Result<()> {
        match change {
            Change::Gone(_) => {
                self.keep(|other, _| *other != tid);
                Ok(())
            }
            Change::Event(event::STOP, signal) => self.stands(tid, signal),
            Change::Event(event::EXEC, _) => {
                let pid = Pid(tid.0);
                self.keep(|_, task| task.pid != pid);
                self.attached(pid, tid, None);
                self.walkout.forget(pid);
                self.vforks.remove(&tid);
                interrupt(tid)?;
                resume(tid, 0)
            }
            Change::Event(kind @ (event::FORK | event::VFORK | event::CLONE), _) => {
                if let Some(child) = self.born(tid)?
                    && kind == event::VFORK
                {
                    self.vforks.insert(child, tid);
                }
                resume(tid, 0)
            }
            Change::Signal(signal) => resume(tid, signal),
            Change::Event(..) | Change::Syscall => resume(tid, 0),
        }
    }

    /// Whether somebody waits in vfork(2) for this one to execute a program or to end.
    fn is_waited_for(&self, tid: Tid) -> bool {
        let maker = self.vforks.get(&tid).and_then(|maker| self.tasks.get(maker));
        maker.is_some_and(|maker| !maker.stands)
    }

    /// A thread stands where the kernel would still restart its call: what we change now is seen by
    /// the same rules.
    fn stands(&mut self, tid: Tid, signal: i32) -> Result<()> {
        if self.is_waited_for(tid) {
            return resume(tid, 0);
        }
        let Some(task) = self.tasks.get_mut(&tid) else { return Ok(()) };
        let raw = match ptrace::registers(tid.0) {
            Err(Errno::ESRCH) => return Ok(()), // Killed: wait(2) will tell.
            raw => RegisterFile(raw.map_err(kernel("ptrace(PTRACE_GETREGSET)"))?),
        };
        if self.walkout.is_inside(task.pid, &raw) {
            self.walkout.goes_on(tid);
            return resume(tid, 0);
        }
        let restarting = raw.restarting();
        if restarting != raw {
            alive(ptrace::set_registers(tid.0, &restarting.0))?;
        }
        (task.stands, task.stopped_at) = (true, monotonic());
        task.waits = match raw.interrupted() {
            Interrupted::No => false,
            Interrupted::Plain(call) => may_wait_or_receive(call),
            _ => raw.call().is_some_and(may_wait),
        };
        task.stopped_by = (signal != libc::SIGTRAP).then_some(signal);
        Ok(())
    }

    /// The thread has started somebody, to whom the kernel has attached us.
    fn born(&mut self, maker: Tid) -> Result<Option<Tid>> {
        let Ok(message) = ptrace::event_message(maker.0) else { return Ok(None) };
        let Ok(number) = i32::try_from(message) else { return Ok(None) };
        let tid = Tid(number);
        let Some(pid) = Status::of(tid).number("Tgid").map(Pid) else { return Ok(None) };
        let parent = Stat::of(tid).parent().filter(|parent| self.processes.contains_key(parent));
        self.add(pid, parent)?;
        self.attached(pid, tid, None);
        Ok(Some(tid))
    }

    /// The forest as it stands.
    pub(super) fn members(&self) -> BTreeMap<Pid, Member> {
        let mut members = BTreeMap::new();
        let mut threads: BTreeMap<Pid, Vec<Tid>> = BTreeMap::new();
        for (tid, task) in &self.tasks {
            threads.entry(task.pid).or_default().push(*tid);
        }
        for (pid, parent) in &self.processes {
            let mut threads = threads.remove(pid).unwrap_or_default();
            threads.sort_by_key(|tid| (tid.0 != pid.0, *tid));
            let stopped_by = |tid| self.tasks.get(tid).and_then(|task| task.stopped_by);
            let life = match (self.zombies.get(pid), threads.iter().find_map(stopped_by)) {
                (Some(status), _) => Life::Zombie { status: *status },
                (None, Some(signal)) => Life::Stopped { signal, unreported: false },
                (None, None) => Life::Running,
            };
            if !threads.is_empty() || matches!(life, Life::Zombie { .. }) {
                members.insert(*pid, Member { parent: *parent, threads, life });
            }
        }
        members
    }

    /// Lets everybody run on: we give up.
    fn let_go(&mut self) {
        let (tries, pause) = (200, Duration::from_micros(100));
        for _ in 0..tries {
            let running = self.running();
            if running.is_empty() {
                break;
            }
            for tid in running {
                if let Err(error) = self.look(tid).and_then(|_| self.interrupt_walkers()) {
                    tracing::debug!(%tid, %error, "while giving up");
                }
            }
            std::thread::sleep(pause);
        }
        for tid in self.tasks.keys() {
            if let Err(errno) = ptrace::detach(tid.0, 0) {
                tracing::debug!(%tid, %errno, "cannot detach: it runs, or is gone");
                wait::reap(tid.0);
            }
        }
    }
}

/// Only with a limit does receiving say EINTR.
fn may_wait_or_receive(call: i64) -> bool {
    may_wait(call) || may_receive(call)
}

/// Longer and longer, the longer nothing happens; and long enough for many to stop on our processor.
fn pause(looks: u32, running: usize) -> Duration {
    let many = STOPPING * u32::try_from(running).unwrap_or(u32::MAX);
    LONGEST_PAUSE.min((PAUSE * (1 + looks / 8)).max(many))
}

/// ESRCH means death, and death is told by wait(2).
pub(super) fn alive(result: nix::Result<()>) -> Result<()> {
    match result {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(Error::Kernel("ptrace", errno)),
    }
}

fn interrupt(tid: Tid) -> Result<()> {
    alive(ptrace::interrupt(tid.0))
}

fn resume(tid: Tid, deliver: i32) -> Result<()> {
    alive(ptrace::resume(tid.0, deliver))
}
