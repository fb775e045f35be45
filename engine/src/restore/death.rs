//! Zombies: blanks that end as the dead ones did, and stay to be reaped.
//!
//! A parent that blocks `SIGCHLD` gets it from us a second time; it is taken away again, for what it
//! had pending is an attribute of its own. A core flag is not made: that takes a core file. Whose it is, what
//! it blocked and for what it had handlers is still seen, and so is put back. Who has gone on after a stop
//! is here too: of that as well a parent is told once more, and not by a signal.
//! Kernel: wait(2), `exit_group(2)`.
use nix::libc;

use super::blanks::{died, done};
use super::memory::tid;
use super::{Restorer, hold};
use crate::attribute::{ATTRIBUTES, Owner};
use crate::error::Result;
use crate::inventory::Pid;
use crate::plan::Stage;
use crate::remote::{Arg, Batch, Call, Caller};
use crate::sys::ptrace;

impl Restorer<'_> {
    /// `status` is as wait(2) tells it: the signal in the low bits, or the code above them.
    pub(super) fn end(&mut self, pid: Pid, status: i32) -> Result<()> {
        let process = self.inventory.processes.get(&pid);
        let name = process.map(|process| process.name.clone()).unwrap_or_default();
        let mut batch = Batch::default();
        let name = Arg::In([name.as_bytes(), b"\0"].concat());
        batch.call("prctl", libc::SYS_prctl, [libc::PR_SET_NAME.into(), name]);
        let signal = status & 0x7f;
        for number in (1..=64).filter(|number| ![libc::SIGKILL, libc::SIGSTOP].contains(number)) {
            let args = [number.into(), Arg::In(vec![0; 32]), 0.into(), 8.into()];
            batch.call("rt_sigaction", libc::SYS_rt_sigaction, args); // Ours are not its own.
        }
        done(&self.blanks.caller(tid(pid))?.perform(&batch)?)?;
        self.seen_by_others(pid)?;
        if signal != 0 && signal != libc::SIGKILL {
            let limit = Arg::In(vec![0; 16]);
            let core = [0.into(), i64::from(libc::RLIMIT_CORE).into(), limit, 0.into()];
            let mut batch = Batch::default();
            batch.call("prlimit64", libc::SYS_prlimit64, core);
            done(&self.blanks.caller(tid(pid))?.perform(&batch)?)?;
        }
        hold::stop(pid.0).map_err(died("ptrace", pid))?;
        let blocked = self.inventory.threads.get(&tid(pid)).map(|thread| thread.blocked);
        let deadly = if signal == 0 { 0 } else { 1u64 << (signal - 1) };
        let blocked = blocked.unwrap_or(u64::MAX) & !deadly;
        ptrace::set_mask(pid.0, blocked).map_err(died("ptrace", pid))?;
        ptrace::detach(pid.0, 0).map_err(died("ptrace", pid))?;
        let last = if signal == 0 {
            let args = vec![((status >> 8) & 0xff).into()];
            Call { name: "exit_group", number: libc::SYS_exit_group, args }
        } else {
            Call { name: "kill", number: libc::SYS_kill, args: vec![pid.0.into(), signal.into()] }
        };
        self.blanks.caller(tid(pid))?.post(&last)?;
        self.blanks.all.remove(&tid(pid));
        hold::until_zombie(pid.0).map_err(died("wait", pid))?;
        let process = self.inventory.processes.get(&pid);
        match process.and_then(|process| Some((process.parent?, process.exit_signal))) {
            Some((parent, signal)) => self.forget_signal(parent, signal),
            None => Ok(()),
        }
    }

    /// What /proc tells of a zombie.
    fn seen_by_others(&mut self, pid: Pid) -> Result<()> {
        for (owner, stage) in [
            (Owner::Process(pid), Stage::Process),
            (Owner::Thread(pid, tid(pid)), Stage::Credentials),
        ] {
            let of_stage = ATTRIBUTES.iter().filter(|entry| entry.stage == stage);
            let names: Vec<_> = of_stage.map(|entry| entry.name).collect();
            self.attributes(owner, stage, &names)?;
        }
        Ok(())
    }

    /// Its parent can ask once more whether it goes on; neither keeps the signal of that.
    pub(super) fn continue_once(&mut self, pid: Pid) -> Result<()> {
        hold::continue_once(pid.0).map_err(died("ptrace", pid))?;
        self.forget_signal(pid, libc::SIGCONT)?;
        match self.inventory.processes.get(&pid).and_then(|process| process.parent) {
            Some(parent) => self.forget_signal(parent, libc::SIGCHLD),
            None => Ok(()),
        }
    }

    /// The parent has been told of the death once before, or should not be told at all.
    pub(super) fn forget_signal(&mut self, parent: Pid, signal: i32) -> Result<()> {
        if !(1..=64).contains(&signal) {
            return Ok(());
        }
        let mut batch = Batch::default();
        let mask = Arg::In((1u64 << (signal - 1)).to_ne_bytes().to_vec());
        let no_time = Arg::In(vec![0; 16]);
        let args = [mask, 0.into(), no_time, 8.into()];
        batch.call("rt_sigtimedwait", libc::SYS_rt_sigtimedwait, args);
        self.blanks.caller(tid(parent))?.perform(&batch).map(drop) // None may be pending.
    }
}
