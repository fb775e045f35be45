//! A thread on loan: it makes calls for us, and never learns of it.
//!
//! At every instant, "the tracer vanishes and the thread goes on with its present registers" leads back
//! to where the program was:
//!
//! 1. The cave, with the way home in it, is written while nobody looks at it.
//! 2. One change of all registers sends the thread there. Only then are its signals blocked from
//!    outside, so that none interrupts; the cave would block them itself if we died in between.
//! 3. The thread maps the area, and tells; performs batches, and tells; unmaps the area, and tells.
//!    Whenever it finds nobody to tell, it takes the way home.
//! 4. At its last stop it gets its mask back, then all its registers, raw: that stop is inside the
//!    kernel's delivery of signals, so an interrupted call is restarted by the kernel's own rules.
//!    That is why no loan ends at a stop for a system call.
//!
//! All through /proc/PID/mem: no memory is shared, no descriptor opened in the process.
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::libc;

use super::Tree;
use super::freeze::alive;
use super::marshal::{Marshalled, marshal};
use super::refuse::{self, refused};
use super::stopped::{Born, Stopped};
use crate::arch::{Context, RegisterFile, cave};
use crate::error::{Error, Result, kernel, kernel_io};
use crate::fault;
use crate::inventory::{Pid, Tid};
use crate::remote::area::{Control, Request};
use crate::remote::{Batch, Caller, RemoteFd, Reply};
use crate::sys::pidfd;
use crate::sys::processor::Pin;
use crate::sys::ptrace::{self, option};

/// How large an area is at first; a batch that needs more gets more.
const AREA_BYTES: u64 = 256 << 10;
/// The most a batch may need.
const AREA_BYTES_MAX: u64 = 64 << 20;

/// A thread on loan: it makes calls for us. Dropping it gives the thread back.
#[derive(Debug)]
pub struct Loan<'tree> {
    tree: &'tree mut Tree,
    pid: Pid,
    tid: Tid,
    stopped: Stopped,
    before: Before,
    area: u64,
    area_bytes: u64,
    /// The thread is in the cave.
    away: bool,
    pin: Option<Pin>,
}

/// What the thread gets back.
#[derive(Debug, Clone, Copy)]
struct Before {
    registers: RegisterFile,
    mask: u64,
}

impl<'tree> Loan<'tree> {
    /// Sends the thread into the cave.
    #[tracing::instrument(level = "trace", skip_all)]
    pub(super) fn begin(tree: &'tree mut Tree, pid: Pid, tid: Tid) -> Result<Self> {
        let mut loan = Self::agree(tree, pid, tid)?;
        loan.enter()?;
        Ok(loan)
    }

    /// A loan for one purpose only: what is at `area` is not the program's, and goes. It begins where
    /// others end, so it needs no area of its own.
    pub(super) fn unmap(tree: &mut Tree, whose: (Pid, Tid), area: u64, bytes: u64) -> Result<()> {
        let mut loan = Loan::agree(tree, whose.0, whose.1)?;
        (loan.area, loan.area_bytes) = (area, bytes);
        let place = loan.write_cave()?;
        loan.steer(loan.before.registers.jumping_to(place + cave().finish))?;
        loan.away = true;
        fault::point("restore:unmapping");
        loan.block_signals()?;
        loan.run()?;
        loan.area = 0;
        loan.finish()
    }

    /// The thread is still where it was.
    #[tracing::instrument(level = "trace", skip_all)]
    fn agree(tree: &'tree mut Tree, pid: Pid, tid: Tid) -> Result<Self> {
        if ptrace::dispatches(tid.0)
            .map_err(tree.death(pid, "ptrace(GET_SYSCALL_USER_DISPATCH)"))?
        {
            return Err(refused(pid, tid, refuse::DISPATCHES));
        }
        let (registers, _) = tree.uncritical(tid)?;
        let mask = ptrace::mask(tid.0).map_err(tree.death(pid, "ptrace(PTRACE_GETSIGMASK)"))?;
        let site = tree.site(pid)?;
        let marker = site.marker(mask);
        let siblings = tree.siblings(pid, tid);
        let stopped = Stopped { pid, tid, siblings, marker };
        let pin = super::procfs::Stat::of(tid).processor().and_then(|n| Pin::to(n).ok());
        let before = Before { registers, mask };
        let (area, away) = (0, false);
        let mut loan =
            Loan { tree, pid, tid, stopped, before, area, area_bytes: AREA_BYTES, away, pin };
        loan.suspend_filters()?;
        Ok(loan)
    }

    /// Filters are a thread's own: asking each whether it has any would take longer than this.
    fn suspend_filters(&mut self) -> Result<()> {
        let options = super::freeze::OPTIONS | option::SUSPEND_SECCOMP;
        match ptrace::set_options(self.tid.0, options) {
            Err(_) if !super::procfs::Status::of(self.tid).is_filtered() => Ok(()),
            done => done.map_err(kernel("ptrace(SUSPEND_SECCOMP)")),
        }
    }

    #[tracing::instrument(level = "trace", skip_all)]
    fn enter(&mut self) -> Result<()> {
        let (pid, tid, bytes) = (self.pid, self.tid, self.area_bytes);
        let site = self.tree.site(pid)?;
        self.area = site.hole(bytes).ok_or_else(|| refused(pid, tid, refuse::NO_AREA))?;
        let place = self.write_cave()?;
        fault::point("remote:cave-written");
        self.steer(self.before.registers.jumping_to(place + cave().enter))?;
        self.away = true;
        fault::point("remote:steered");
        self.block_signals()?;
        fault::point("remote:signals-blocked");
        let answer = self.run()?.cave_answer();
        fault::point("remote:area-mapped");
        if answer != self.area {
            self.leave()?;
            return Err(refused(pid, tid, refuse::NO_AREA));
        }
        Ok(())
    }

    /// With the way home in it; where it is.
    fn write_cave(&mut self) -> Result<u64> {
        let context = Context {
            registers: self.before.registers.by_hand(),
            mask: self.before.mask,
            blocked: self.stopped.blocked(),
            area: self.area,
            area_bytes: self.area_bytes,
            marker: self.stopped.marker,
        };
        let site = self.tree.site(self.pid)?;
        let written = site.memory.write_all_at(&cave().filled(&context), site.cave);
        written.map_err(|_| refused(self.pid, self.tid, refuse::NO_CAVE))?;
        Ok(site.cave)
    }

    fn block_signals(&self) -> Result<()> {
        ptrace::set_mask(self.tid.0, self.stopped.blocked())
            .map_err(self.tree.death(self.pid, "ptrace(PTRACE_SETSIGMASK)"))
    }

    fn steer(&self, registers: RegisterFile) -> Result<()> {
        ptrace::set_registers(self.tid.0, &registers.0)
            .map_err(self.tree.death(self.pid, "ptrace(PTRACE_SETREGSET)"))
    }

    /// Runs the thread until it tells; its registers then.
    fn run(&mut self) -> Result<RegisterFile> {
        self.run_and_see(&mut |_| Ok(()))
    }

    /// Likewise, and shows whom it clones.
    #[tracing::instrument(level = "trace", skip_all)]
    pub(super) fn run_and_see(&mut self, born: Born<'_>) -> Result<RegisterFile> {
        let told = self.tree.site(self.pid)?.cave + cave().told;
        self.stopped.run(told, born).inspect_err(|error| {
            if matches!(error, Error::Died(_)) {
                self.away = false;
                self.tree.lost(self.pid);
            }
        })
    }

    /// Unmaps the area if there is one, and puts everything back.
    #[tracing::instrument(level = "trace", skip_all)]
    fn leave(&mut self) -> Result<()> {
        let (memory_cave, mapped) = (self.tree.site(self.pid)?.cave, self.area != 0);
        if mapped {
            let registers = self.before.registers.jumping_to(memory_cave + cave().finish);
            self.steer(registers)?;
            fault::point("remote:steered-home");
            self.run()?;
            self.area = 0;
        }
        fault::point("remote:area-unmapped");
        self.stopped.into_delivery()?;
        alive(ptrace::set_mask(self.tid.0, self.before.mask))?;
        fault::point("remote:mask-restored");
        self.steer(self.before.registers)?;
        self.away = false;
        fault::point("remote:registers-restored");
        let nothing = vec![0; cave().bytes.len()];
        let site = self.tree.site(self.pid)?;
        site.memory.write_all_at(&nothing, site.cave).map_err(kernel_io("write(/proc/PID/mem)"))?;
        fault::point("remote:cave-cleared");
        Ok(())
    }

    /// Has an area of at least `bytes`.
    fn widen(&mut self, bytes: u64) -> Result<()> {
        if bytes <= self.area_bytes {
            return Ok(());
        }
        if bytes > AREA_BYTES_MAX {
            return Err(Error::Kernel("mmap", Errno::E2BIG));
        }
        self.leave()?;
        self.area_bytes = bytes.next_power_of_two();
        self.enter()
    }

    /// Writes what it shall do, and only then how many requests that are.
    pub(super) fn request(&mut self, requests: &[u8], count: usize) -> Result<()> {
        let memory = &self.tree.site(self.pid)?.memory;
        let lost = kernel_io("/proc/PID/mem");
        memory.write_all_at(requests, self.area + Control::REQUESTS as u64).map_err(&lost)?;
        fault::point("remote:requests-written");
        let count = (count as u64).to_ne_bytes();
        memory.write_all_at(&count, self.area + Control::COUNT as u64).map_err(&lost)?;
        fault::point("remote:batch-counted");
        Ok(())
    }

    /// Where its area is.
    pub(super) fn area(&self) -> u64 {
        self.area
    }

    /// Performs what fits into the area at once.
    fn perform_at_once(&mut self, marshalled: &Marshalled) -> Result<(Vec<i64>, Vec<u8>)> {
        self.request(&marshalled.bytes, marshalled.count)?;
        self.run()?;
        fault::point("remote:batch-done");
        let mut bytes = vec![0; marshalled.bytes.len() + marshalled.out_bytes];
        let memory = &self.tree.site(self.pid)?.memory;
        let behind_count = self.area + Control::REQUESTS as u64;
        memory.read_exact_at(&mut bytes, behind_count).map_err(kernel_io("/proc/PID/mem"))?;
        let requests = bytes.get(..marshalled.count * Request::BYTES).unwrap_or_default();
        Ok((Request::results(requests).collect(), bytes))
    }

    /// Gives the thread back and says whether that went well.
    pub fn finish(mut self) -> Result<()> {
        if self.away { self.leave() } else { Ok(()) }
    }

    /// A duplicate of one of the process's own descriptors; it keeps its own.
    pub fn duplicate(&self, fd: RemoteFd) -> Result<OwnedFd> {
        let process = pidfd::open(self.pid).map_err(kernel("pidfd_open"))?;
        pidfd::take(process.as_fd(), fd.0).map_err(kernel("pidfd_getfd"))
    }
}

impl Caller for Loan<'_> {
    #[tracing::instrument(level = "trace", skip_all)]
    fn perform(&mut self, batch: &Batch) -> Result<Vec<Reply>> {
        let mut replies = Vec::with_capacity(batch.0.len());
        for calls in batch.0.chunks(super::marshal::CALLS_AT_ONCE) {
            self.widen(super::marshal::need(calls))?;
            let marshalled = marshal(calls, self.area);
            let (results, bytes) = self.perform_at_once(&marshalled)?;
            replies.extend(marshalled.replies(calls, &results, &bytes));
        }
        Ok(replies)
    }

    fn steal(&mut self, fd: RemoteFd) -> Result<OwnedFd> {
        let ours = self.duplicate(fd)?;
        let mut batch = Batch::default();
        batch.call("close", libc::SYS_close, [i64::from(fd).into()]);
        for reply in self.perform(&batch)? {
            reply.value()?;
        }
        Ok(ours)
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        if self.away
            && let Err(error) = self.leave()
        {
            tracing::error!(tid = %self.tid, %error, "cannot give a borrowed thread back");
        }
        self.pin = None;
    }
}
