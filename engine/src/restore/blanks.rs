//! Blank processes and threads: born with the image's numbers, held, waiting for calls.
//!
//! They share one area of memory with us, in which each has a block (see [`crate::sys::area`]).
//! Seized at once, they die with us; and a blank that was born but not yet seized ends by itself.
//! Kernel: clone3(2) with `set_tid`, ptrace(2).
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;

use super::hold;
use crate::arch::blank::{self, CloneArgs, Slot};
use crate::error::{Error, Result, kernel};
use crate::inventory::{Pid, SpaceId, Special, Tid};
use crate::plan::Birth;
use crate::remote::{Arg, Batch, Call, Caller, RemoteFd, Reply};
use crate::restore::Parentage;
use crate::sys::area::{Area, BlockRef, DATA_BYTES, SLOTS};
use crate::sys::{pidfd, ptrace, signals};

/// Where the kernel's own mappings are in a blank: what, from, to.
pub(super) type SpecialPlaces = Vec<(Special, u64, u64)>;

impl Blank {
    /// Whether it has ended.
    fn is_gone(&self) -> bool {
        let (pid, tid) = (self.pid, self.tid);
        if self.seized {
            return hold::lost(tid.0);
        }
        !std::path::Path::new(&format!("/proc/{pid}/task/{tid}")).exists()
    }
}

/// What is in a blank's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// A copy of ours.
    Ours,
    /// Finished memory of the image.
    Image(SpaceId),
}

/// One of them; for each process, and for each further thread.
#[derive(Debug, Clone)]
pub(super) struct Blank {
    pub(super) pid: Pid,
    pub(super) tid: Tid,
    /// Who forked it, if not we.
    pub(super) maker: Option<Pid>,
    block: usize,
    pub(super) seized: bool,
    pub(super) content: Content,
    pub(super) special: SpecialPlaces,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Blanks {
    pub(super) area: Area,
    pub(super) all: BTreeMap<Tid, Blank>,
    next: usize,
    owner: i32,
}

/// How long to wait before looking whether somebody has died.
const PATIENCE: Duration = Duration::from_millis(100);

impl Blanks {
    pub(super) fn new(area: Area) -> Self {
        let owner = nix::unistd::getpid().as_raw();
        Self { area, all: BTreeMap::new(), next: 0, owner }
    }

    pub(super) fn get(&self, tid: Tid) -> Result<&Blank> {
        self.all.get(&tid).ok_or_else(|| Error::Record(format!("thread {tid}"), None))
    }

    pub(super) fn leader(&self, pid: Pid) -> Result<&Blank> {
        self.get(Tid(pid.0))
    }

    pub(super) fn leader_mut(&mut self, pid: Pid) -> Result<&mut Blank> {
        let missing = || Error::Record(format!("process {pid}"), None);
        self.all.get_mut(&Tid(pid.0)).ok_or_else(missing)
    }

    pub(super) fn block(&self, blank: &Blank) -> Result<BlockRef<'_>> {
        self.area.block(blank.block, self.owner).map_err(kernel("mmap"))
    }

    /// Somebody in whom calls can be made.
    pub(super) fn caller(&self, tid: Tid) -> Result<Loan<'_>> {
        let blank = self.get(tid)?;
        Ok(Loan { blank, block: self.block(blank)? })
    }

    /// Forks one from ourselves.
    pub(super) fn born_here(
        &mut self,
        birth: &Birth,
        parentage: Parentage,
        special: &SpecialPlaces,
    ) -> Result<()> {
        let blank = self.await_one(birth.pid, Tid(birth.pid.0), Content::Ours, special.clone())?;
        let adopted = parentage == Parentage::Sibling;
        let set_tid = [birth.pid.0];
        let args = CloneArgs {
            flags: if adopted { libc::CLONE_PARENT as u64 } else { 0 },
            exit_signal: if adopted { 0 } else { birth.exit_signal.unsigned_abs().into() },
            set_tid: set_tid.as_ptr().expose_provenance() as u64,
            set_tid_size: 1,
            ..CloneArgs::default()
        };
        let block = self.block(&blank)?.address();
        // Blanks, and all whom they fork, hear of no signal before they are what they were.
        let before = signals::block(u64::MAX).map_err(kernel("sigprocmask"))?;
        let born = blank::clone_into(&args, self.area.address(), block).map_err(kernel("clone3"));
        signals::block(before).map_err(kernel("sigprocmask"))?;
        born?;
        self.arrived(blank)?;
        self.forget_rseq(birth.pid)
    }

    /// Our registration was inherited, and points into memory that will go.
    fn forget_rseq(&self, pid: Pid) -> Result<()> {
        hold::stop(pid.0).map_err(died("ptrace", pid))?;
        let rseq = ptrace::rseq(pid.0).map_err(died("ptrace", pid))?;
        ptrace::resume(pid.0, 0).map_err(died("ptrace", pid))?;
        let Some(rseq) = rseq else { return Ok(()) };
        let mut batch = Batch::default();
        let address = rseq.address.cast_signed();
        let args = [address.into(), rseq.size.into(), 1.into(), rseq.signature.into()];
        batch.call("rseq", libc::SYS_rseq, args);
        done(&self.caller(Tid(pid.0))?.perform(&batch)?)
    }

    /// Has `maker` fork one.
    pub(super) fn born_of(&mut self, birth: &Birth, maker: Pid) -> Result<()> {
        let made_by = self.leader(maker)?.clone();
        let mut flags = 0;
        for (set, flag) in [
            (birth.sibling, libc::CLONE_PARENT),
            (birth.shares_table, libc::CLONE_FILES),
            (birth.shares_space, libc::CLONE_VM),
            (birth.shares_fs, libc::CLONE_FS),
        ] {
            flags |= if set { u64::from(flag.cast_unsigned()) } else { 0 };
        }
        let exit_signal = if birth.sibling { 0 } else { birth.exit_signal.unsigned_abs().into() };
        let blank =
            self.await_one(birth.pid, Tid(birth.pid.0), made_by.content, made_by.special.clone())?;
        self.clone_in(&made_by, &[&blank], flags, exit_signal)?;
        self.arrived(Blank { maker: Some(maker), ..blank })
    }

    /// Starts the other threads of a process.
    pub(super) fn threads(&mut self, pid: Pid, tids: &[Tid]) -> Result<()> {
        let leader = self.leader(pid)?.clone();
        let flags = libc::CLONE_VM
            | libc::CLONE_FS
            | libc::CLONE_FILES
            | libc::CLONE_SIGHAND
            | libc::CLONE_THREAD
            | libc::CLONE_SYSVSEM;
        for some in tids.chunks(SLOTS) {
            let mut expected = Vec::new();
            for tid in some {
                expected.push(self.await_one(pid, *tid, leader.content, Vec::new())?);
            }
            self.clone_in(
                &leader,
                &expected.iter().collect::<Vec<_>>(),
                u64::from(flags.cast_unsigned()),
                0,
            )?;
            for blank in expected {
                self.wait(&blank)?;
                self.all.insert(blank.tid, blank);
            }
        }
        Ok(())
    }

    fn await_one(
        &mut self,
        pid: Pid,
        tid: Tid,
        content: Content,
        special: SpecialPlaces,
    ) -> Result<Blank> {
        let blank =
            Blank { pid, tid, maker: None, block: self.next, seized: false, content, special };
        self.next += 1;
        self.block(&blank)?.arm();
        Ok(blank)
    }

    fn arrived(&mut self, mut blank: Blank) -> Result<()> {
        hold::seize(blank.tid.0).map_err(died("ptrace", blank.pid))?;
        blank.seized = true;
        self.wait(&blank)?;
        self.all.insert(blank.tid, blank);
        Ok(())
    }

    fn wait(&self, blank: &Blank) -> Result<()> {
        let block = self.block(blank)?;
        while !block.wait(PATIENCE) {
            if blank.is_gone() {
                return Err(Error::Died(blank.pid));
            }
        }
        Ok(())
    }

    /// One batch of clones in `maker`, whose children will be found in their blocks.
    fn clone_in(&self, maker: &Blank, born: &[&Blank], flags: u64, exit_signal: u64) -> Result<()> {
        const ENTRY: usize = size_of::<CloneArgs>() + 8;
        let block = self.block(maker)?;
        let mut slots = Vec::new();
        for (index, blank) in born.iter().enumerate() {
            let (at, stack) = (index * ENTRY, self.block(blank)?.address());
            let [set_tid, args] = [at, at + 8].map(|at| block.data_address(at));
            // The stack pointer will be the block's address; the size only must not be zero.
            let words =
                [flags, 0, 0, 0, exit_signal, stack - 16, 16, 0, set_tid, 1].map(u64::to_ne_bytes);
            let tid = i64::from(blank.tid.0).to_ne_bytes();
            block.put(at, &[&tid[..], words.as_flattened()].concat()).map_err(kernel("clone3"))?;
            slots.push(Slot {
                number: libc::SYS_clone3,
                args: [args, size_of::<CloneArgs>() as u64, 0, 0, 0, 0],
                flags: blank::CLONES,
                ..Slot::default()
            });
        }
        block.post(&slots).map_err(kernel("clone3"))?;
        self.wait(maker)?;
        for result in block.results(slots.len()).map_err(kernel("clone3"))? {
            Reply { call: "clone3", result, out: Vec::new() }.value()?;
        }
        Ok(())
    }
}

/// For `map_err`: `ESRCH` means death.
pub(super) fn died(call: &'static str, pid: Pid) -> impl Fn(Errno) -> Error {
    move |errno| if errno == Errno::ESRCH { Error::Died(pid) } else { Error::Kernel(call, errno) }
}

/// Whether every call of a batch succeeded.
pub(super) fn done(replies: &[Reply]) -> Result<()> {
    replies.iter().try_for_each(|reply| reply.value().map(drop))
}

/// A blank to make calls in.
#[derive(Debug)]
pub(super) struct Loan<'a> {
    blank: &'a Blank,
    block: BlockRef<'a>,
}

/// A call as it lies in the block, and where its answers will be.
type LaidOut = (Slot, Vec<(usize, usize)>);

impl Loan<'_> {
    /// Lays out as many calls as fit; how many.
    fn lay_out(&self, calls: &[Call]) -> Result<Vec<LaidOut>> {
        let (mut at, mut slots) = (0, Vec::new());
        for call in calls.iter().take(SLOTS) {
            let need: usize = call.args.iter().map(room).sum();
            if at + need > DATA_BYTES {
                break;
            }
            let mut slot = Slot { number: call.number, ..Slot::default() };
            let mut outs = Vec::new();
            for (word, arg) in slot.args.iter_mut().zip(&call.args) {
                match arg {
                    Arg::Value(value) => *word = value.cast_unsigned(),
                    Arg::In(bytes) => {
                        self.block.put(at, bytes).map_err(kernel(call.name))?;
                        *word = self.block.data_address(at);
                    }
                    Arg::Out(len) => {
                        self.block.put(at, &vec![0; *len]).map_err(kernel(call.name))?;
                        *word = self.block.data_address(at);
                        outs.push((at, *len));
                    }
                }
                at += room(arg);
            }
            slots.push((slot, outs));
        }
        Ok(slots)
    }

    /// Posts without waiting. Only for the last thing one does.
    pub(super) fn post(&self, call: &Call) -> Result<()> {
        let slots: Vec<_> =
            self.lay_out(std::slice::from_ref(call))?.into_iter().map(|s| s.0).collect();
        self.block.post(&slots).map_err(kernel(call.name))
    }

    pub(super) fn block(&self) -> BlockRef<'_> {
        self.block
    }

    pub(super) fn wait(&self) -> Result<()> {
        while !self.block.wait(PATIENCE) {
            if self.blank.is_gone() {
                return Err(Error::Died(self.blank.pid));
            }
        }
        Ok(())
    }
}

/// Room in the data, so that everything is aligned.
fn room(arg: &Arg) -> usize {
    let len = match arg {
        Arg::Value(_) => 0,
        Arg::In(bytes) => bytes.len(),
        Arg::Out(len) => *len,
    };
    len.next_multiple_of(16)
}

impl Caller for Loan<'_> {
    fn perform(&mut self, batch: &Batch) -> Result<Vec<Reply>> {
        let (mut calls, mut replies) = (batch.0.as_slice(), Vec::with_capacity(batch.0.len()));
        while let Some(first) = calls.first() {
            let laid_out = self.lay_out(calls)?;
            if laid_out.is_empty() {
                return Err(Error::Kernel(first.name, Errno::E2BIG));
            }
            let slots: Vec<_> = laid_out.iter().map(|(slot, _)| *slot).collect();
            self.block.post(&slots).map_err(kernel(first.name))?;
            self.wait()?;
            let results = self.block.results(slots.len()).map_err(kernel(first.name))?;
            let (now, later) = calls.split_at(slots.len());
            for ((call, result), (_, outs)) in now.iter().zip(results).zip(&laid_out) {
                let mut out = Vec::new();
                for (at, len) in outs {
                    let mut bytes = vec![0; *len];
                    self.block.get(*at, &mut bytes).map_err(kernel(call.name))?;
                    out.append(&mut bytes);
                }
                replies.push(Reply { call: call.name, result, out });
            }
            calls = later;
        }
        Ok(replies)
    }

    fn steal(&mut self, fd: RemoteFd) -> Result<OwnedFd> {
        let process = pidfd::open(self.blank.pid).map_err(died("pidfd_open", self.blank.pid))?;
        let ours = pidfd::take(process.as_fd(), fd.0).map_err(kernel("pidfd_getfd"))?;
        let mut batch = Batch::default();
        batch.call("close", libc::SYS_close, [fd.into()]);
        done(&self.perform(&batch)?)?;
        Ok(ours)
    }
}
