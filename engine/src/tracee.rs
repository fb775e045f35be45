//! Stopped processes: freezing a tree, borrowing its threads, letting it go.
//!
//! The kernel obeys only the thread that attached: nothing here is `Send`.
mod asleep;
mod countdown;
mod deadline;
mod freeze;
mod helper;
mod loan;
mod marshal;
mod parting;
mod procfs;
mod reaper;
mod receiving;
mod refuse;
mod site;
mod stopped;
mod twin;
mod userfault;
mod walkout;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;

use self::asleep::Asleep;
use self::countdown::Countdown;
use self::deadline::{Stubs, Waiting};
use self::freeze::{Freezer, alive};
pub use self::loan::Loan;
pub(crate) use self::procfs::other_threads;
use self::receiving::Receiving;
use self::refuse::refused;
use self::site::Site;
pub(crate) use self::site::elf_end as vdso_image_end;
pub use self::twin::Twin;
use crate::arch::{RegisterFile, stub};
use crate::error::{Error, Result, kernel_io};
use crate::fault;
use crate::inventory::{Life, Pid, Rseq, Thread, Tid};
use crate::sys;
use crate::sys::wait::Change;
use crate::sys::{pidfd, ptrace, wait};

/// One process of a frozen tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// `None` for a root.
    pub parent: Option<Pid>,
    /// Its threads, the leader first.
    pub threads: Vec<Tid>,
    /// Runs, stands, or is dead.
    pub life: Life,
}

/// One thread that we are attached to.
#[derive(Debug, Clone, Copy)]
struct Task {
    pid: Pid,
    /// It stands, in a stop for an event.
    stands: bool,
    /// The signal by which job control has stopped its process.
    stopped_by: Option<i32>,
    /// When we saw that, by `CLOCK_MONOTONIC`.
    stopped_at: i64,
    /// It was interrupted in a call that may have a timeout.
    waits: bool,
    /// What it slept in before we came.
    asleep: Option<Asleep>,
    /// Its stub, if it sleeps with a relative timeout.
    waiting: Option<Waiting>,
    /// What is left of its timeout, if the kernel notes that in its memory.
    countdown: Option<Countdown>,
    /// Its stub, if it waits to receive from a socket with a limit.
    receiving: Option<Receiving>,
}

impl Task {
    fn running(pid: Pid) -> Self {
        Self {
            pid,
            stands: false,
            stopped_by: None,
            stopped_at: 0,
            waits: false,
            asleep: None,
            waiting: None,
            countdown: None,
            receiving: None,
        }
    }
}

impl Task {
    fn make_stub(
        &mut self,
        tid: Tid,
        site: &Site,
        stubs: &mut Stubs,
        registers: &RegisterFile,
    ) -> std::io::Result<()> {
        self.waiting = stubs.make(site, tid, registers, self.asleep)?;
        if self.waiting.is_none() {
            let whose = (self.pid, tid);
            self.receiving = Receiving::make(site, stubs, whose, registers, self.asleep)?;
        }
        Ok(())
    }
}

/// A forest whose every thread stands still. It goes on, exactly, when this is dropped.
#[derive(Debug)]
pub struct Tree {
    members: BTreeMap<Pid, Member>,
    tasks: BTreeMap<Tid, Task>,
    sites: BTreeMap<Pid, Site>,
    /// When the first was about to be stopped, by `CLOCK_MONOTONIC`.
    since: i64,
    not_send: PhantomData<*const ()>,
}

impl Tree {
    /// Seizes and stops `roots` and all their descendants, to a fixpoint over forks, execs and
    /// exits; gives up after `deadline`, and everybody runs on.
    pub fn freeze(roots: &[Pid], deadline: Duration) -> Result<Self> {
        if let Some(missing) = roots.iter().find(|pid| procfs::threads(**pid).is_empty()) {
            return Err(refused(*missing, Tid(missing.0), refuse::NO_PROCESS));
        }
        Self::freeze_all(&mut || Ok(roots.to_vec()), deadline)
    }

    /// Likewise, where the roots are asked for anew until all stand: orphans may become roots.
    pub fn freeze_all(
        roots: &mut dyn FnMut() -> Result<Vec<Pid>>,
        deadline: Duration,
    ) -> Result<Self> {
        let frozen = freeze::freeze(roots, deadline)?;
        let members = frozen.members();
        let Freezer { tasks, since, .. } = frozen;
        fault::point("freeze:standing");
        let since = since.unwrap_or_else(asleep::monotonic);
        let mut tree =
            Self { members, tasks, sites: BTreeMap::new(), since, not_send: PhantomData };
        tree.keep_deadlines()?;
        fault::point("freeze:deadlines-kept");
        Ok(tree)
    }

    /// A tree that we hold already, every thread of it in a stop: one that is just being restored.
    pub(crate) fn held(members: BTreeMap<Pid, Member>) -> Self {
        let mut tasks = BTreeMap::new();
        for (pid, member) in &members {
            let stopped_by = match member.life {
                Life::Stopped { signal, .. } => Some(signal),
                _ => None,
            };
            let task = Task { stands: true, stopped_by, ..Task::running(*pid) };
            for tid in &member.threads {
                // As after a freeze: a thread that blocks every signal is followed by its calls. ESRCH
                // means death, which the first loan tells.
                ptrace::set_options(tid.0, freeze::OPTIONS).unwrap_or_default();
                tasks.insert(*tid, task);
            }
        }
        let since = asleep::monotonic();
        Self { members, tasks, sites: BTreeMap::new(), since, not_send: PhantomData }
    }

    /// Whoever sleeps with a relative timeout shall wake when it would have without us.
    fn keep_deadlines(&mut self) -> Result<()> {
        let waits = |task: &Task| task.waits.then_some(task.pid);
        for pid in self.tasks.values().filter_map(waits).collect::<BTreeSet<_>>() {
            match self.keep_deadlines_of(pid) {
                // Without a place for stubs the kernel's own rules apply.
                Err(Error::Refused(_)) | Ok(()) => {}
                Err(error) => return Err(self.dead().map_or(error, Error::Died)),
            }
        }
        Ok(())
    }

    fn keep_deadlines_of(&mut self, pid: Pid) -> Result<()> {
        self.site(pid)?;
        let Self { sites, tasks, .. } = self;
        let Some(site) = sites.get(&pid) else { return Ok(()) };
        let lost = kernel_io("/proc/PID/mem");
        let mut stubs = Stubs::of(site).map_err(&lost)?;
        let mut fresh = Vec::new();
        for (tid, task) in tasks.iter_mut().filter(|(_, task)| task.pid == pid) {
            let Ok(words) = ptrace::registers(tid.0) else { continue };
            let registers = RegisterFile(words);
            task.waiting = stubs.present(*tid, &registers);
            task.receiving = Receiving::present(site, &mut stubs, &registers);
            if task.waiting.is_none() && task.receiving.is_none() && task.waits {
                task.countdown =
                    Countdown::of(site, *tid, &registers, task.asleep, task.stopped_at);
                fresh.push((*tid, registers));
            }
        }
        // Whose timeout the kernel forgets comes before those for whom it is a matter of the image.
        fresh.sort_by_key(|(_, registers)| !registers.is_forgotten());
        for (tid, registers) in fresh {
            let Some(task) = tasks.get_mut(&tid) else { continue };
            task.make_stub(tid, site, &mut stubs, &registers).map_err(&lost)?;
            if registers.is_forgotten() && stubs.is_full() {
                let others = tasks.values_mut().filter(|task| task.pid == pid);
                let dispensable = others.filter_map(|task| task.waiting.take_if(|one| !one.inside));
                dispensable.for_each(|waiting| stubs.give_up(&waiting));
                let Some(task) = tasks.get_mut(&tid) else { continue };
                task.make_stub(tid, site, &mut stubs, &registers).map_err(&lost)?;
            }
        }
        for (tid, task) in tasks.iter_mut().filter(|(_, task)| task.pid == pid) {
            alive(wait_the_rest(site, *tid, task))?;
        }
        Ok(())
    }

    /// Since when the first stands, or was about to, by `CLOCK_MONOTONIC`, in nanoseconds.
    pub(crate) fn since(&self) -> i64 {
        self.since
    }

    /// Who stands.
    #[must_use]
    pub fn members(&self) -> &BTreeMap<Pid, Member> {
        &self.members
    }

    /// What resuming this thread elsewhere takes: registers corrected for restart, rseq aborted.
    pub fn thread(&mut self, tid: Tid) -> Result<Thread> {
        let pid = self.process_of(tid)?;
        let (raw, rseq) = self.uncritical(tid)?;
        let now = asleep::monotonic();
        let (sites, task) = (&self.sites, self.tasks.get_mut(&tid));
        let countdown = task.as_ref().and_then(|task| task.countdown);
        if let (Some(left), Some(site)) = (countdown, sites.get(&pid)) {
            left.refresh(site);
        }
        let receiving = task.as_ref().and_then(|task| task.receiving);
        let raw = match (receiving, sites.get(&pid)) {
            (Some(one), Some(site)) => one.inside(site, raw).map_err(kernel_io("/proc/PID/mem"))?,
            _ => raw,
        };
        let registers = match (task.and_then(|task| task.waiting.as_mut()), sites.get(&pid)) {
            (Some(waiting), Some(site)) => {
                waiting.refresh(site, now).map_err(kernel_io("/proc/PID/mem"))?;
                stub::waiting(raw, waiting.address, &waiting.stub, waiting.timeout(now))
            }
            _ => raw.elsewhere().into(),
        };
        let xstate = ptrace::xstate(tid.0).map_err(self.death(pid, "ptrace(NT_X86_XSTATE)"))?;
        let blocked = ptrace::mask(tid.0).map_err(self.death(pid, "ptrace(PTRACE_GETSIGMASK)"))?;
        Ok(Thread { registers, xstate, blocked, rseq })
    }

    /// Borrows a thread to make calls in it; its context comes back when the loan ends.
    pub fn borrow(&mut self, tid: Tid) -> Result<Loan<'_>> {
        let pid = self.process_of(tid)?;
        Loan::begin(self, pid, tid)
    }

    /// Somebody who was killed since: all others are in a stop, and would answer.
    pub(crate) fn dead(&self) -> Option<Pid> {
        let dead = |tid: &Tid| ptrace::event_message(tid.0) == Err(Errno::ESRCH);
        self.tasks.iter().find_map(|(tid, task)| dead(tid).then_some(task.pid))
    }

    /// The status file of a process that stands.
    pub(crate) fn status(&mut self, pid: Pid) -> Result<String> {
        Ok(self.site(pid)?.status.text().to_owned())
    }

    /// Has a thread unmap what is not its program's.
    pub(crate) fn unmap(&mut self, tid: Tid, area: u64, bytes: u64) -> Result<()> {
        let pid = self.process_of(tid)?;
        Loan::unmap(self, (pid, tid), area, bytes)
    }

    /// Lets everybody go on, as if nothing had happened.
    pub fn thaw(mut self) -> Result<()> {
        self.release()
    }

    /// Kills everybody, and waits until they are gone.
    pub fn kill(mut self) -> Result<()> {
        let handles: Vec<_> =
            self.members.keys().filter_map(|pid| pidfd::open(*pid).ok()).collect();
        for pid in self.members.keys() {
            // SIGKILL reaches stopped tracees; whoever is gone already needs none.
            match nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid.0),
                nix::sys::signal::SIGKILL,
            ) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(Error::Kernel("kill", errno)),
            }
        }
        // Only so that they are gone sooner: two processors free memory in half the time.
        for handle in &handles {
            pidfd::release_memory(handle.as_fd()).unwrap_or_default();
        }
        // Others before leaders: the end of a leader is told last.
        let tasks = std::mem::take(&mut self.tasks);
        let (leaders, others): (Vec<_>, Vec<_>) = tasks.iter().partition(|(t, k)| t.0 == k.pid.0);
        for (tid, _) in others.into_iter().chain(leaders) {
            while !matches!(wait::wait(tid.0), Ok(Change::Gone(_)) | Err(_)) {}
        }
        Ok(())
    }

    fn release(&mut self) -> Result<()> {
        for (tid, task) in &mut self.tasks {
            if let Some(site) = self.sites.get(&task.pid) {
                alive(wait_the_rest(site, *tid, task))?;
            }
        }
        let tasks = std::mem::take(&mut self.tasks).into_keys().enumerate();
        parting::detach(tasks.map(|(index, tid)| {
            if index == 1 {
                fault::point("thaw:half");
            }
            tid
        }))
    }

    fn process_of(&self, tid: Tid) -> Result<Pid> {
        self.tasks.get(&tid).map(|task| task.pid).ok_or(Error::Died(Pid(tid.0)))
    }

    fn siblings(&self, pid: Pid, tid: Tid) -> Vec<Tid> {
        let threads = self.members.get(&pid).map(|member| member.threads.as_slice());
        threads.unwrap_or_default().iter().copied().filter(|other| *other != tid).collect()
    }

    /// ESRCH from a stopped tracee means that it was killed.
    fn death(&self, pid: Pid, call: &'static str) -> impl Fn(Errno) -> Error + use<> {
        move |errno| match errno {
            Errno::ESRCH => Error::Died(pid),
            errno => Error::Kernel(call, errno),
        }
    }

    /// The process has died: nobody is left to let go.
    fn lost(&mut self, pid: Pid) {
        self.tasks.retain(|_, task| task.pid != pid);
        self.sites.remove(&pid);
    }

    fn site(&mut self, pid: Pid) -> Result<&Site> {
        match self.sites.entry(pid) {
            Entry::Occupied(found) => Ok(found.into_mut()),
            Entry::Vacant(place) => {
                let site = Site::find(pid).map_err(kernel_io("open(/proc/PID/mem)"))?;
                let none = || refused(pid, Tid(pid.0), refuse::NO_CAVE);
                Ok(place.insert(site.ok_or_else(none)?))
            }
        }
    }

    fn rseq(&self, pid: Pid, tid: Tid) -> Result<Option<Rseq>> {
        ptrace::rseq(tid.0).map_err(self.death(pid, "ptrace(PTRACE_GET_RSEQ_CONFIGURATION)"))
    }

    /// The raw registers, out of any restartable sequence: the kernel would abort it as soon as the
    /// thread ran elsewhere, and then would not know it any more. Calls are made outside of sequences only.
    fn uncritical(&mut self, tid: Tid) -> Result<(RegisterFile, Option<Rseq>)> {
        let pid = self.process_of(tid)?;
        let raw = ptrace::registers(tid.0).map_err(self.death(pid, "ptrace(PTRACE_GETREGSET)"))?;
        let (raw, rseq) = (RegisterFile(raw), self.rseq(pid, tid)?);
        let Some(area) = rseq.filter(|_| raw.call().is_none()) else { return Ok((raw, rseq)) };
        let memory = &self.site(pid)?.memory;
        let abort = sys::rseq::abort(memory, area.address, raw.instruction());
        Ok((abort.map_or(raw, |handler| raw.moved_to(handler)), rseq))
    }
}

/// Has a thread that the kernel would let wait anew wait the rest, in its stub.
fn wait_the_rest(site: &Site, tid: Tid, task: &mut Task) -> nix::Result<()> {
    if let Some(left) = task.countdown {
        left.refresh(site);
    }
    if let Some(receiving) = task.receiving {
        let raw = RegisterFile(ptrace::registers(tid.0)?);
        let registers = receiving.inside(site, raw).map_err(|_| Errno::ESRCH)?;
        return ptrace::set_registers(tid.0, &registers.0);
    }
    let Some(waiting) = task.waiting.as_mut() else { return Ok(()) };
    let now = asleep::monotonic();
    waiting.refresh(site, now).map_err(|_| Errno::ESRCH)?;
    if !waiting.inside {
        return Ok(());
    }
    let mut registers = RegisterFile(ptrace::registers(tid.0)?);
    registers.set_argument(waiting.stub.argument, waiting.timeout(now));
    let registers = registers.moved_to(waiting.address + stub::WAITING);
    ptrace::set_registers(tid.0, &registers.0)
}

impl Drop for Tree {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            tracing::error!(%error, "cannot let a frozen tree go");
        }
    }
}
