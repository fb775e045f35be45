//! The end of a restore: everybody goes, or nobody.
//!
//! All threads go to the gate and are stopped there. Then they are spared: from here on they would
//! outlive us, but at the gate they wait for one word only for a moment, and end. One store opens
//! it: whoever is let go from then on, by us or by our death, ends in the program. Left alone, a
//! thread loads everything from its frame (`rt_sigreturn(2)`), and the area stays mapped; with us, the
//! registers are set from here and the area is unmapped by an instruction of the vdso.
//! Kernel: ptrace(2), signal(7).
use std::os::unix::fs::FileExt;

use nix::libc;

use super::Restorer;
use super::blanks::{died, done};
use super::memory::tid;
use crate::arch::{blank, frame};
use crate::attribute::is_pending;
use crate::checkpoint::Standing;
use crate::error::{Error, Obstacle, Result, kernel, kernel_io};
use crate::external::External;
use crate::inventory::{Backing, Life, Pid, Process, Registers, Special, Thread, Tid};
use crate::remote::{Arg, Batch, Call, Caller};
use crate::session::{self, Tracer};
use crate::sys::hold;
use crate::verify::{self, Digests};

/// `include/uapi/asm/prctl.h` of x86.
const ARCH_SET_GS: i32 = 0x1001;
const ARCH_SET_FS: i32 = 0x1002;
const ARCH_REQ_XCOMP_PERM: i32 = 0x1023;
/// Indices in `struct user_regs_struct`.
const RAX: usize = 10;
const RSI: usize = 13;
const RDI: usize = 14;
const ORIG_RAX: usize = 15;
const RIP: usize = 16;
const FS_BASE: usize = 21;
const GS_BASE: usize = 22;

impl Restorer<'_> {
    /// With `look`, all are looked at before they go, and end if they are not what they were.
    pub(super) fn release(&mut self, look: bool) -> Result<()> {
        let living: Vec<(Pid, Vec<Tid>, Life)> = self
            .inventory
            .processes
            .iter()
            .filter(|(_, process)| !matches!(process.life, Life::Zombie { .. }))
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
        for (_, tids, _) in living.iter().filter(|(.., life)| *life == Life::Running) {
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
        if look {
            return self.look_again();
        }
        for (pid, tids, _) in &living {
            for tid in tids.iter().rev() {
                if let Err(errno) = hold::detach(tid.0) {
                    tracing::warn!(%pid, %tid, %errno, "a thread ended while it was let go");
                }
            }
        }
        Ok(())
    }

    /// Takes the inventory of what was restored, before any of it runs. As everything here is told
    /// by the kernel, it is the oracle of what the whole restore did.
    fn look_again(&self) -> Result<()> {
        let mut tree = Standing::restored(self.inventory)?;
        let externals = self.options.externals.iter().map(External::try_clone);
        let externals = externals.collect::<std::io::Result<_>>().map_err(kernel_io("fcntl"))?;
        let how = session::Options { externals, close_tcp: self.options.close_tcp, private: false };
        let (mut obstacles, mut bytes) = (Vec::new(), Digests::of(self.inventory));
        let found = tree.inventory(&how, &mut obstacles)?;
        // The clocks that we made go on for them are theirs, not ours.
        let clocks = |one: &Obstacle| one.object.starts_with("namespace time");
        obstacles.retain(|one| !(self.options.continue_clocks && clocks(one)));
        tree.capture(&found)?.drain(&mut bytes)?;
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
        let of = |running: bool| {
            living.iter().filter(move |(.., life)| (*life == Life::Running) == running)
        };
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
            let tiles = frame::TILE_DATA;
            let args = [ARCH_REQ_XCOMP_PERM.into(), tiles.into()];
            batch.call("arch_prctl", libc::SYS_arch_prctl, args);
        }
        done(&self.blanks.caller(tid(pid))?.perform(&batch)?)
    }

    fn has_tiles(&self, tid: Tid) -> bool {
        let thread = self.inventory.threads.get(&tid);
        thread.is_some_and(|thread| frame::holds(&thread.xstate) >> frame::TILE_DATA & 1 != 0)
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
            let bytes = frame::build(at, registers, xstate, self.xfeatures, *blocked);
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

    /// The leader is the last: it unmaps what the others need until they have their registers.
    fn let_go(&self, pid: Pid, tids: &[Tid]) -> Result<()> {
        for &one in tids.iter().rev() {
            let thread = self.thread(one)?;
            if one == tid(pid) {
                self.unmap_area(pid)?;
            }
            hold::set_xstate(one.0, &thread.xstate).map_err(died("ptrace", pid))?;
            hold::set_blocked(one.0, thread.blocked).map_err(died("ptrace", pid))?;
            hold::set_registers(one.0, &settled(&thread.registers)).map_err(died("ptrace", pid))?;
        }
        Ok(())
    }

    fn unmap_area(&self, pid: Pid) -> Result<()> {
        let processes = &self.inventory.processes;
        let space = processes.get(&pid).map(|process| process.space);
        let living = |process: &Process| !matches!(process.life, Life::Zombie { .. });
        let mut users = processes.iter().filter(|(_, p)| Some(p.space) == space && living(p));
        let last = users.next_back().is_some_and(|(last, _)| *last == pid);
        let Some(at) = self.call_instruction(pid).filter(|_| last) else { return Ok(()) };
        let mut registers = hold::registers(pid.0).map_err(died("ptrace", pid))?;
        let call = libc::SYS_munmap.cast_unsigned();
        let (base, len) = (self.blanks.area.address(), self.blanks.area.len() as u64);
        let changes = [(RAX, call), (RDI, base), (RSI, len), (ORIG_RAX, u64::MAX), (RIP, at)];
        for (word, value) in changes {
            if let Some(word) = registers.0.get_mut(word) {
                *word = value;
            }
        }
        hold::set_registers(pid.0, &registers).map_err(died("ptrace", pid))?;
        hold::to_call(pid.0).map_err(died("ptrace", pid))?;
        hold::to_call(pid.0).map_err(died("ptrace", pid))
    }

    /// Where the vdso makes a system call; without one, where any code does.
    fn call_instruction(&self, pid: Pid) -> Option<u64> {
        let space = self.inventory.processes.get(&pid)?.space;
        let space = self.inventory.spaces.get(&space)?;
        let call = |bytes: &[u8]| bytes.windows(2).position(|bytes| bytes == [0x0f, 0x05]);
        let vdso = space.vmas.iter().find(|v| v.backing == Backing::Special(Special::Vdso));
        if let Some(vdso) = vdso {
            return call(&space.vdso).map(|at| vdso.start + at as u64);
        }
        let memory = std::fs::File::open(format!("/proc/{pid}/mem")).ok()?;
        let code = space.vmas.iter().filter(|vma| vma.prot & libc::PROT_EXEC != 0);
        code.into_iter().find_map(|vma| {
            let len = usize::try_from((vma.end - vma.start).min(CODE)).ok()?;
            let mut bytes = vec![0; len];
            memory.read_exact_at(&mut bytes, vma.start).ok()?;
            call(&bytes).map(|at| vma.start + at as u64)
        })
    }
}

/// How far into code we look.
const CODE: u64 = 4 << 20;

/// No call is under way, so none is to be restarted.
fn settled(registers: &Registers) -> Registers {
    let mut registers = *registers;
    if let Some(word) = registers.0.get_mut(ORIG_RAX) {
        *word = u64::MAX;
    }
    registers
}
