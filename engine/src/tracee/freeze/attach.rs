//! Taking processes and threads into the forest: who may be there, and who is not to be had.
use nix::errno::Errno;

use super::super::asleep::{Asleep, monotonic};
use super::super::procfs::{self, Stat, Status};
use super::super::refuse::{self, refused};
use super::{Freezer, OPTIONS, PAUSE, interrupt, may_wait_or_receive};
use crate::arch::{may_wait, says_eintr_for_a_stop};
use crate::cgroup;
use crate::error::{Cause, Error, Result};
use crate::fault;
use crate::inventory::{Pid, Tid};
use crate::procfs::text;
use crate::sys::ptrace;

/// So often the kernel must say that we may not trace somebody.
const DENIALS: u32 = 50;
/// How many threads are waited for one by one, and for how many looks, of 0.3 us each.
const MENDED_AT_ONCE: u32 = 64;
const LOOKS_TO_MEND: u32 = 300;

impl Freezer {
    /// Takes a process into the forest, if it may be there.
    pub(super) fn add(&mut self, pid: Pid, parent: Option<Pid>) -> Result<bool> {
        if self.processes.contains_key(&pid) {
            return Ok(false);
        }
        let cause = match pid.0 {
            1 => Some(refuse::INIT),
            own if own == nix::unistd::getpid().as_raw() => Some(refuse::OURSELVES),
            _ if Stat::of(Tid(pid.0)).is_kernel_thread() => Some(refuse::KERNEL_THREAD),
            _ => self.is_frozen(pid)?.then_some(refuse::FROZEN),
        };
        if let Some(cause) = cause {
            return Err(refused(pid, Tid(pid.0), cause));
        }
        self.processes.insert(pid, parent);
        Ok(true)
    }

    /// Whoever is frozen could be stopped, in the newer kind of groups, but not be lent out.
    fn is_frozen(&mut self, pid: Pid) -> Result<bool> {
        let theirs = text(format!("/proc/{pid}/cgroup"));
        let Ok(theirs) = theirs else { return Ok(false) }; // Gone: wait(2) will tell.
        let [ours, ..] = &self.thawed[..] else { return Ok(false) };
        if self.thawed.contains(&theirs) {
            return Ok(false);
        }
        let frozen = cgroup::frozen(&theirs, ours)?;
        if !frozen {
            self.thawed.push(theirs);
        }
        Ok(frozen)
    }

    /// Attaches to those threads of a process that are new.
    pub(super) fn attach_all(&mut self, pid: Pid) -> Result<bool> {
        let mut news = false;
        let threads = procfs::threads(pid);
        let is_new = |tid: &&Tid| !self.tasks.contains_key(tid) && !self.zombies.contains_key(&pid);
        let new: Vec<_> = threads.iter().filter(is_new).copied().collect();
        // Of all before the first: attaching wakes them.
        let sleeps: Vec<_> =
            new.iter().map(|tid| self.clocks.asleep(*tid, may_wait_or_receive)).collect();
        self.walkout.prepare(pid);
        self.since.get_or_insert_with(monotonic);
        for (tid, asleep) in new.into_iter().zip(sleeps) {
            news |= self.attach(pid, tid, threads.len() == 1, asleep)?;
        }
        Ok(news)
    }

    fn attach(&mut self, pid: Pid, tid: Tid, alone: bool, asleep: Option<Asleep>) -> Result<bool> {
        match self.reaper.during(pid, || ptrace::seize(tid.0, OPTIONS)) {
            Ok(()) => {
                fault::point("freeze:attached");
                self.attached(pid, tid, asleep);
                interrupt(tid)?;
                if asleep.is_some_and(|sleep| is_to_be_mended(sleep.call)) {
                    self.mend_at_once(tid)?;
                }
                Ok(true)
            }
            Err(Errno::ESRCH) => Ok(false),
            Err(Errno::EPERM) => self.not_attached(pid, tid, alone),
            Err(errno) => Err(Error::Kernel("ptrace(PTRACE_SEIZE)", errno)),
        }
    }

    /// Until its registers are mended, such a thread would see EINTR if we died: so that is not for long.
    /// With many of them, all that waiting would only add to the pause.
    fn mend_at_once(&mut self, tid: Tid) -> Result<()> {
        if self.mended < MENDED_AT_ONCE {
            self.mended += 1;
            for _ in 0..LOOKS_TO_MEND {
                if self.look(tid)? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// EPERM has many meanings.
    fn not_attached(&mut self, pid: Pid, tid: Tid, alone: bool) -> Result<bool> {
        let stat = Stat::of(tid);
        if stat.is_dead() {
            if tid.0 != pid.0 {
                return Ok(false);
            }
            if !alone {
                return self.denied(pid, tid, refuse::LEADER_GONE);
            }
            self.zombies.insert(pid, Stat::of_process(pid).exit_code());
            return Ok(true);
        }
        match Status::of(tid).number("TracerPid") {
            // A child that the kernel attached for us.
            Some(tracer) if tracer == nix::unistd::gettid().as_raw() => {
                self.attached(pid, tid, None);
                interrupt(tid)?;
                Ok(true)
            }
            Some(0) => self.denied(pid, tid, refuse::PERMISSION),
            Some(_) => Err(refused(pid, tid, refuse::TRACED)),
            None => Ok(false),
        }
    }

    /// For a moment a thread that an exec(2) ends looks like one that we may not trace, and
    /// its process like one without a leader.
    fn denied(&mut self, pid: Pid, tid: Tid, cause: Cause) -> Result<bool> {
        let times = self.denied.entry(tid).or_default();
        *times += 1;
        if *times > DENIALS {
            return Err(refused(pid, tid, cause));
        }
        std::thread::sleep(PAUSE);
        Ok(true)
    }
}

/// Calls that say EINTR for a stop, and always have a limit or none by their arguments.
fn is_to_be_mended(call: i64) -> bool {
    may_wait(call) && says_eintr_for_a_stop(call)
}
