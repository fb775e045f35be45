//! All attributes of a process and its threads: one loan, and one batch, for each thread that is asked.
use nix::libc::{self, SYS_brk};

use super::apart;
use super::unasked::{Roll, Unasked};
use crate::attribute::{self, Asked, Fact, Owner, Seen, States};
use crate::error::{Obstacle, Result, kernel_io};
use crate::inventory::{Note, Pid, Tid};
use crate::procfs::{self, Fields};
use crate::remote::{Arg, Batch, Caller, Reply};
use crate::tracee::{Member, Tree};

/// What was asked inside a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OfProcess {
    /// By owner and name, as the inventory has them.
    pub(crate) states: Vec<((Owner, String), Vec<u8>)>,
    /// `brk(0)`: the end of the heap, which /proc does not tell.
    pub(crate) brk: u64,
    /// Lines of status files that nobody knows.
    pub(crate) notes: Vec<Note>,
    /// Which children wait(2) has yet to tell it of.
    pub(crate) news: Vec<(Pid, News)>,
}

/// What wait(2) tells of a child that lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// Job control has stopped it.
    Stopped,
    /// It goes on.
    Continued,
}

/// Asks the leader of a process, and all other threads of whom not enough is known already.
#[tracing::instrument(level = "trace", skip_all)]
pub(crate) fn attributes(
    tree: &mut Tree,
    pid: Pid,
    threads: &[Tid],
    unasked: &mut Unasked,
    obstacles: &mut Vec<Obstacle>,
) -> Result<OfProcess> {
    let mut all = OfProcess::default();
    let together = are_together(threads, &unasked.roll);
    let mut doubtful = Vec::new();
    for tid in threads {
        if unasked.take((pid, *tid)) {
            continue;
        }
        doubtful.extend((tid.0 != pid.0).then_some(*tid));
        let owner = Owner::Thread(pid, *tid);
        if let Some(states) = asked(tree, (owner, together), &mut all, obstacles)? {
            if tid.0 == pid.0 {
                unasked.lead(pid, &states);
            }
            all.add(owner, states);
        }
    }
    apart::check(pid, &doubtful, obstacles)?;
    Ok(all)
}

/// Whether all these are known to be in the same control groups.
fn are_together(threads: &[Tid], roll: &Roll) -> bool {
    let groups = |tid: &Tid| roll.get(tid).map(|row| row.fact(Fact::ControlGroups));
    let first = threads.first().and_then(groups);
    threads.len() == 1 || first.is_some() && threads.iter().all(|tid| groups(tid) == first)
}

/// Those of a thread that is lent out, and of its process, if it is the leader. `None`: it must not be.
fn asked(
    tree: &mut Tree,
    (owner, together): (Owner, bool),
    all: &mut OfProcess,
    obstacles: &mut Vec<Obstacle>,
) -> Result<Option<States>> {
    let text = status(tree, owner)?;
    if attribute::is_confined(owner, &text, obstacles)? {
        return Ok(None);
    }
    let pid = owner.pid();
    let leads = owner.tid().0 == pid.0;
    let mut batch = Batch::default();
    let process = Owner::Process(pid);
    let of_process = leads.then(|| attribute::ask(process, &mut batch)).transpose()?;
    let of_thread = attribute::ask(owner, &mut batch)?;
    let rest = batch.0.len();
    let children = if leads { children(tree, pid) } else { Vec::new() };
    batch.call("brk", SYS_brk, [0.into()]);
    ask_for_news(&children, &mut batch);
    let mut loan = tree.borrow(owner.tid())?;
    let replies = loan.perform(&batch)?;
    let mut answer = |asked: Asked, owner| {
        let mut status = Fields::parse(&text);
        let mut seen = Seen { owner, status: &mut status, quiet: false, together, obstacles };
        asked.answer(&replies, &mut seen)
    };
    if let Some(of_process) = of_process {
        all.add(process, answer(of_process, process)?.states);
    }
    let collected = answer(of_thread, owner)?;
    if let Some((brk, others)) = replies.get(rest..).and_then(<[_]>::split_first).filter(|_| leads)
    {
        all.notes.extend(collected.unknown.into_iter().map(|key| unknown(pid, &key)));
        all.brk = brk.value()?.cast_unsigned();
        all.news = news(&children, others);
        let (name, state) = attribute::look(all.brk, &mut loan)?;
        all.states.push(((process, name), state));
    }
    loan.finish()?;
    Ok(Some(collected.states))
}

/// The status file of a thread; that of a leader is its process's, which calls in it need as well.
fn status(tree: &mut Tree, owner: Owner) -> Result<String> {
    let (pid, tid) = (owner.pid(), owner.tid());
    if tid.0 == pid.0 {
        return tree.status(pid);
    }
    procfs::text(format!("/proc/{pid}/task/{tid}/status")).map_err(kernel_io("read"))
}

impl OfProcess {
    fn add(&mut self, owner: Owner, states: States) {
        let named = |(name, state): (&str, Vec<u8>)| ((owner, name.to_owned()), state);
        self.states.extend(states.into_iter().map(named));
    }
}

/// Its children that live.
fn children(tree: &Tree, pid: Pid) -> Vec<Pid> {
    let child = |(child, member): (&Pid, &Member)| {
        (member.parent == Some(pid) && member.life.is_living()).then_some(*child)
    };
    tree.members().iter().filter_map(child).collect()
}

fn unknown(pid: Pid, key: &str) -> Note {
    Note { pid: Some(pid), text: format!("its status has a line {key} that is not known to us") }
}

/// Asks a process what its children have done, without taking that from it.
fn ask_for_news(children: &[Pid], batch: &mut Batch) {
    let how = libc::WSTOPPED | libc::WCONTINUED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    for child in children {
        let args = [libc::P_PID.into(), child.0.into(), Arg::Out(128), how.into(), 0.into()];
        batch.call("waitid", libc::SYS_waitid, args);
    }
}

fn news(children: &[Pid], replies: &[Reply]) -> Vec<(Pid, News)> {
    // `si_code` of the `siginfo_t`; zero if there are none.
    let code = |reply: &Reply| {
        let bytes = reply.out.get(8..)?.first_chunk()?;
        match i32::from_ne_bytes(*bytes) {
            0 => None,
            libc::CLD_CONTINUED => Some(News::Continued),
            _ => Some(News::Stopped),
        }
    };
    let told = children.iter().zip(replies);
    told.filter_map(|(child, reply)| Some((*child, code(reply)?))).collect()
}
