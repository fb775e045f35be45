//! All attributes of a process and its threads: one loan, and one batch, for each thread.
use nix::libc::SYS_brk;

use crate::attribute::{self, Owner};
use crate::error::{Error, Obstacle, Result, kernel_io};
use crate::inventory::{Note, Pid, Tid};
use crate::procfs::{self, Fields};
use crate::remote::{Batch, Caller};
use crate::tracee::Tree;

/// What was asked inside a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OfProcess {
    /// By owner and name, as the inventory has them.
    pub(crate) states: Vec<((Owner, String), Vec<u8>)>,
    /// `brk(0)`: the end of the heap, which /proc does not tell.
    pub(crate) brk: u64,
    /// Lines of status files that nobody knows.
    pub(crate) notes: Vec<Note>,
}

/// Asks the leader and all other threads of a process.
pub(crate) fn attributes(
    tree: &mut Tree,
    pid: Pid,
    threads: &[Tid],
    obstacles: &mut Vec<Obstacle>,
) -> Result<OfProcess> {
    let mut all = OfProcess::default();
    for tid in threads {
        let text = procfs::text(format!("/proc/{pid}/task/{tid}/status"));
        let text = text.map_err(kernel_io("read"))?;
        let leader = tid.0 == pid.0;
        let owners = [leader.then_some(Owner::Process(pid)), Some(Owner::Thread(pid, *tid))];
        let mut loan = tree.borrow(*tid)?;
        for owner in owners.into_iter().flatten() {
            let mut status = Fields::parse(&text);
            let collected = attribute::collect(owner, &mut loan, &mut status, obstacles)?;
            let named = |(name, state): (&str, Vec<u8>)| ((owner, name.to_owned()), state);
            all.states.extend(collected.states.into_iter().map(named));
            if leader && owner.scope() == attribute::Scope::Thread {
                all.notes.extend(collected.unknown.into_iter().map(|key| unknown(pid, &key)));
            }
        }
        if leader {
            all.brk = brk(&mut loan)?;
            let (name, state) = attribute::look(all.brk, &mut loan)?;
            all.states.push(((Owner::Process(pid), name), state));
        }
        loan.finish()?;
    }
    Ok(all)
}

fn unknown(pid: Pid, key: &str) -> Note {
    Note { pid: Some(pid), text: format!("its status has a line {key} that is not known to us") }
}

fn brk(inside: &mut dyn Caller) -> Result<u64> {
    let mut batch = Batch::default();
    batch.call("brk", SYS_brk, [0.into()]);
    let replies = inside.perform(&batch)?;
    let reply = replies.first().ok_or(Error::Kernel("brk", nix::errno::Errno::ENODATA))?;
    reply.value().map(i64::cast_unsigned)
}
