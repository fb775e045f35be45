//! The end of a restore: everybody goes, or nobody.
//!
//! All threads go to the gate and are stopped there. Then they are spared: from here on they would
//! outlive us, but at the gate they wait for one word only for a moment, and end. One store opens
//! it: whoever is let go from then on, by us or by our death, ends in the program. Left alone, a
//! thread loads everything from its frame (`rt_sigreturn(2)`), and the area stays mapped; with us, the
//! registers are set from here, and then one of each space is lent out to unmap the area.
//! Kernel: ptrace(2), signal(7).
use std::collections::BTreeSet;

use nix::libc;

use super::blanks::{died, done};
use super::memory::tid;
use super::{Restorer, hold};
use crate::arch::{blank, frame, xsave};
use crate::attribute::is_pending;
use crate::checkpoint::Standing;
use crate::error::{Error, Obstacle, Result, kernel};
use crate::inventory::{Life, Pid, Process, Registers, Thread, Tid};
use crate::remote::{Arg, Batch, Call, Caller};
use crate::session::{self, Tracer};
use crate::sys::ptrace;
use crate::tracee::{Member, Tree};
use crate::verify::{self, Digests};

/// `include/uapi/asm/prctl.h` of x86.
const ARCH_SET_GS: i32 = 0x1001;
const ARCH_SET_FS: i32 = 0x1002;
const ARCH_REQ_XCOMP_PERM: i32 = 0x1023;
/// Indices in `struct user_regs_struct`.
const ORIG_RAX: usize = 15;
const FS_BASE: usize = 21;
const GS_BASE: usize = 22;

impl Restorer<'_> {
    /// With `look`, all are looked at before they go, and end if they are not what they were.
    pub(super) fn release(&mut self, look: bool) -> Result<()> {
        let living: Vec<(Pid, Vec<Tid>, Life)> = self
            .inventory
            .processes
            .iter()
            .filter(|(_, process)| process.life.is_living())
            .map(|(pid, process)| (*pid, process.threads.clone(), process.life))
            .collect();
        for (pid, tids, _) in &living {
            self.last_calls(*pid, tids)?;
        }
        // Who was stopped stops before its parent goes to the gate: the parent has to see it.
        for (pid, tids, life) in &living {
            if let Life::Stopped { signal, unreported } = life {
                self.to_gate(tids)?;
                self.halt(*pid, *signal, *unreported)?;
            }
        }
        for (_, tids, _) in living.iter().filter(|(.., life)| !life.is_stopped()) {
            self.to_gate(tids)?;
        }
        for (pid, tids, _) in &living {
            self.stop_all(*pid, tids)?;
        }
        self.spare(&living)?;
        crate::fault::point("restore:gate-shut");
        if !self.blanks.area.open_gate() {
            return Err(Error::Kernel("futex", nix::errno::Errno::ETIMEDOUT));
        }
        crate::fault::point("restore:gate-open");
        // Nothing can be taken back any more: who has died meanwhile has died as a program does.
        for (pid, tids, _) in &living {
            crate::fault::point("restore:let-go");
            if let Err(error) = self.let_go(*pid, tids) {
                tracing::warn!(%pid, %error, "a process ended while it was let go");
            }
        }
        let mut tree = self.tree();
        self.unmap_area(&mut tree, &living);
        if look { self.look_again(tree) } else { tree.thaw() }
    }

    /// Takes the inventory of what was restored, before any of it runs. As everything here is told
    /// by the kernel, it is the oracle of what the whole restore did.
    fn look_again(&self, tree: Tree) -> Result<()> {
        let mut tree = Standing::restored(tree)?;
        let super::Options { externals, close_tcp, .. } = self.options;
        let how = session::Options { externals, close_tcp: *close_tcp, ..Default::default() };
        let (mut obstacles, mut bytes) = (Vec::new(), Digests::of(self.inventory));
        let mut found = tree.inventory(&how, &mut obstacles)?;
        // The clocks that we made go on for them are theirs, not ours.
        let clocks = |one: &Obstacle| one.object.starts_with("namespace time");
        obstacles.retain(|one| !(self.options.continue_clocks && clocks(one)));
        let mut capture = tree.capture(&mut found, None)?;
        capture.drain_standing(&mut bytes)?;
        capture.drain(&mut bytes)?;
        let mut differences = verify::differences(self.inventory, &found);
        differences.extend(bytes.differences(self.image)?);
        obstacles.extend(verify::obstacles(differences));
        if obstacles.is_empty() {
            return tree.thaw().map(drop);
        }
        tree.kill()?;
        Err(Error::Refused(obstacles))
    }

    /// From here on they outlive us. Those that run first: if we die they end at the gate, and end those that
    /// are stopped. Where all are stopped, nobody could: they die with us until they are let go.
    fn spare(&self, living: &[(Pid, Vec<Tid>, Life)]) -> Result<()> {
        let of =
            |running: bool| living.iter().filter(move |(.., life)| life.is_stopped() != running);
        let stopped: Vec<_> = of(false).map(|(pid, ..)| pid.0).collect();
        self.blanks.area.stopped(&stopped).map_err(kernel("mmap"))?;
        let last = if of(true).next().is_some() { Some(of(false)) } else { None };
        for tid in of(true).chain(last.into_iter().flatten()).flat_map(|(_, tids, _)| tids) {
            hold::spare(tid.0).map_err(kernel("ptrace"))?;
        }
        Ok(())
    }

    /// What has to be done while calls can still be made: our socket is closed.
    fn last_calls(&mut self, pid: Pid, tids: &[Tid]) -> Result<()> {
        let mut batch = Batch::default();
        if self.planted.contains(&pid) {
            self.transport.close(&mut batch);
        }
        if tids.iter().any(|tid| self.has_tiles(*tid)) {
            let tiles = xsave::TILE_DATA;
            let args = [ARCH_REQ_XCOMP_PERM.into(), tiles.into()];
            batch.call("arch_prctl", libc::SYS_arch_prctl, args);
        }
        done(&self.blanks.caller(tid(pid))?.perform(&batch)?)
    }

    fn has_tiles(&self, tid: Tid) -> bool {
        let thread = self.inventory.threads.get(&tid);
        thread.is_some_and(|thread| xsave::holds(&thread.xstate) >> xsave::TILE_DATA & 1 != 0)
    }

    /// Segment bases and rseq area; then on to the gate with a frame. All at once, then wait.
    fn to_gate(&mut self, tids: &[Tid]) -> Result<()> {
        for &tid in tids {
            let thread = self.thread(tid)?;
            let mut batch = Batch::default();
            if self.has_tiles(tid) {
                let mut config = vec![0u8; 64];
                // `struct tileconfig`, palette 1: tile 0 has rows of 64 bytes, 16 of them.
                for (at, value) in [(0, 1), (16, 64), (48, 16)] {
                    if let Some(byte) = config.get_mut(at) {
                        *byte = value;
                    }
                }
                batch.call("ldtilecfg", blank::TILES, [Arg::In(config)]);
            }
            let base = |at: usize| thread.registers.0.get(at).copied().unwrap_or(0).cast_signed();
            for (code, at) in [(ARCH_SET_FS, FS_BASE), (ARCH_SET_GS, GS_BASE)] {
                batch.call("arch_prctl", libc::SYS_arch_prctl, [code.into(), base(at).into()]);
            }
            if let Some(rseq) = thread.rseq {
                let at = rseq.address.cast_signed();
                let args = [at.into(), rseq.size.into(), 0.into(), rseq.signature.into()];
                batch.call("rseq", libc::SYS_rseq, args);
            }
            let mut loan = self.blanks.caller(tid)?;
            done(&loan.perform(&batch)?)?;
            let block = loan.block();
            let at = block.data_address(0).next_multiple_of(64);
            let offset = usize::try_from(at - block.data_address(0)).unwrap_or(0);
            let Thread { registers, xstate, blocked, .. } = thread;
            let bytes =
                frame::build(at, registers, &xsave::whole(xstate), self.xfeatures, *blocked);
            block.put(offset, &bytes).map_err(kernel("rt_sigreturn"))?;
            let gate = self.blanks.area.gate_address().cast_signed();
            let stack = (at + 8).cast_signed();
            let args = vec![gate.into(), stack.into()];
            loan.post(&Call { name: "futex", number: blank::GATE, args })?;
        }
        tids.iter().try_for_each(|tid| self.blanks.caller(*tid)?.wait())
    }

    fn thread(&self, tid: Tid) -> Result<&Thread> {
        let damaged = || Error::Record(format!("thread {tid}"), None);
        self.inventory.threads.get(&tid).ok_or_else(damaged)
    }

    /// Stops a process as job control does, and has its parent hear of it if it had. The signal that
    /// it gets for that now is one too many.
    fn halt(&mut self, pid: Pid, signal: i32, unreported: bool) -> Result<()> {
        hold::halt(pid.0, signal).map_err(died("ptrace", pid))?;
        self.halted.insert(tid(pid));
        let parent = self.inventory.processes.get(&pid).and_then(|process| process.parent);
        let Some(parent) = parent else { return Ok(()) };
        let mut batch = Batch::default();
        if !unreported {
            let (which, how) = (libc::P_PID, libc::WSTOPPED | libc::WNOHANG | libc::__WALL);
            let args = [which.into(), pid.0.into(), Arg::Out(128), how.into(), 0.into()];
            batch.call("waitid", libc::SYS_waitid, args);
        }
        if !is_pending(&self.inventory.attributes, parent, libc::SIGCHLD)? {
            let which = 1u64 << (libc::SIGCHLD - 1);
            let (which, never) = (Arg::In(which.to_ne_bytes().to_vec()), Arg::In(vec![0; 16]));
            let args = [which, 0.into(), never, 8.into()];
            batch.call("rt_sigtimedwait", libc::SYS_rt_sigtimedwait, args);
        }
        self.blanks.caller(tid(parent))?.perform(&batch).map(drop)
    }

    fn stop_all(&mut self, pid: Pid, tids: &[Tid]) -> Result<()> {
        for &tid in tids {
            if tid.0 != pid.0 {
                hold::seize(tid.0).map_err(died("ptrace", pid))?;
            }
            let stopped = self.halted.contains(&tid);
            if !stopped {
                hold::stop(tid.0).map_err(died("ptrace", pid))?;
            }
        }
        Ok(())
    }

    /// All get their own registers; what they have of ours besides is the area.
    fn let_go(&self, pid: Pid, tids: &[Tid]) -> Result<()> {
        for &tid in tids {
            let thread = self.thread(tid)?;
            let died = died("ptrace", pid);
            ptrace::set_xstate(tid.0, &thread.xstate).map_err(&died)?;
            ptrace::set_mask(tid.0, thread.blocked).map_err(&died)?;
            ptrace::set_registers(tid.0, &settled(&thread.registers).0).map_err(&died)?;
        }
        Ok(())
    }

    /// The restored tree, as if it had just been frozen.
    fn tree(&self) -> Tree {
        let member = |process: &Process| Member {
            parent: process.parent,
            threads: process.threads.clone(),
            life: process.life,
        };
        let processes = self.inventory.processes.iter();
        Tree::held(processes.map(|(pid, process)| (*pid, member(process))).collect())
    }

    /// In each space somebody has the area go, by the cave: whenever we die, that leads home.
    fn unmap_area(&self, tree: &mut Tree, living: &[(Pid, Vec<Tid>, Life)]) {
        let (area, bytes) = (self.blanks.area.address(), self.blanks.area.len() as u64);
        let mut spaces = BTreeSet::new();
        for (pid, ..) in living {
            let space = self.inventory.processes.get(pid).map(|process| process.space);
            if spaces.insert(space)
                && let Err(error) = tree.unmap(tid(*pid), area, bytes)
            {
                tracing::warn!(%pid, %error, "it keeps an area of ours");
            }
        }
    }
}

/// No call is under way, so none is to be restarted.
fn settled(registers: &Registers) -> Registers {
    let mut registers = *registers;
    if let Some(word) = registers.0.get_mut(ORIG_RAX) {
        *word = u64::MAX;
    }
    registers
}
