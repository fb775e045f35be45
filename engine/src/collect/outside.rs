//! The calls of a thread that is not lent out: answered from outside, and by what the kernel knows of it.
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::libc;

use crate::census::{Fact, Row};
use crate::error::{Error, Result};
use crate::inventory::Tid;
use crate::remote::{Arg, Batch, Call, Caller, RemoteFd, Reply};
use crate::sys::scheduling;

/// `sizeof(struct robust_list_head)` of `include/uapi/linux/futex.h`.
const ROBUST_LIST_BYTES: u64 = 24;
/// `include/uapi/linux/signal.h` and `asm-generic/signal-defs.h`: no stack, and what was asked for besides.
const SS_DISABLE: u64 = 2;
const SS_AUTODISARM: u64 = 1 << 31;

/// A thread that stands, and what is known of it.
#[derive(Debug)]
pub(super) struct Outside<'a> {
    pub(super) tid: Tid,
    pub(super) row: &'a Row,
}

impl Caller for Outside<'_> {
    fn perform(&mut self, batch: &Batch) -> Result<Vec<Reply>> {
        batch.0.iter().map(|call| self.answer(call)).collect()
    }

    fn steal(&mut self, _: RemoteFd) -> Result<OwnedFd> {
        Err(Error::Kernel("pidfd_getfd", Errno::ENOSYS))
    }
}

impl Outside<'_> {
    fn answer(&self, call: &Call) -> Result<Reply> {
        let tid = self.tid.0;
        let room = call.args.iter().find_map(|arg| match arg {
            Arg::Out(bytes) => Some(vec![0; *bytes]),
            _ => None,
        });
        let mut room = room.unwrap_or_default();
        let told = match (call.number, call.args.first()) {
            (libc::SYS_sched_getaffinity, _) => scheduling::affinity(tid, &mut room),
            (libc::SYS_sched_getattr, _) => scheduling::attributes(tid, &mut room),
            (libc::SYS_ioprio_get, _) => scheduling::io_priority(tid),
            (number, first) => {
                room = self.known(number, first).ok_or(Error::Kernel(call.name, Errno::ENOSYS))?;
                Ok(0)
            }
        };
        let result = told.unwrap_or_else(|errno| -i64::from(errno as i32));
        Ok(Reply { call: call.name, result, out: room })
    }

    /// What such a call would write.
    fn known(&self, number: i64, first: Option<&Arg>) -> Option<Vec<u8>> {
        let fact = |fact| self.row.fact(fact);
        let is = |option: i32| first == Some(&option.into());
        let words = match number {
            libc::SYS_prctl if is(libc::PR_GET_NAME) => return Some(self.row.name().into()),
            libc::SYS_prctl if is(libc::PR_GET_TID_ADDRESS) => vec![fact(Fact::ClearChildTid)],
            libc::SYS_get_robust_list => vec![fact(Fact::RobustList), ROBUST_LIST_BYTES],
            libc::SYS_sigaltstack => {
                let bytes = fact(Fact::AlternateStackBytes);
                let none = if bytes == 0 { SS_DISABLE } else { 0 };
                let flags = fact(Fact::AlternateStackFlags) & SS_AUTODISARM | none;
                vec![fact(Fact::AlternateStack), flags, bytes]
            }
            _ => return None,
        };
        Some(words.into_iter().flat_map(u64::to_ne_bytes).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribute::{ATTRIBUTES, Owner, Scope, Told};
    use crate::census::Census;
    use crate::inventory::Pid;
    use crate::sys::here::Here;

    /// What is told from outside is what the thread itself would be told.
    #[test]
    fn answers_are_those_that_the_thread_would_get() {
        let tid = Tid(nix::unistd::gettid().as_raw());
        let row = Census::prepare().unwrap().take().unwrap()[&tid];
        let owner = Owner::Thread(Pid(std::process::id().cast_signed()), tid);
        let outside = |entry: &&crate::attribute::Entry| {
            entry.scope == Scope::Thread && entry.told == Told::Outside
        };
        let mut asked = 0;
        for entry in ATTRIBUTES.iter().filter(outside) {
            let mut batch = Batch::default();
            (entry.ask)(owner, &mut batch).unwrap();
            let told = Outside { tid, row: &row }.perform(&batch).unwrap();
            assert_eq!(told, Here.perform(&batch).unwrap(), "{}", entry.name);
            asked += batch.0.len();
        }
        assert_eq!(asked, 7);
    }
}
