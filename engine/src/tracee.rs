//! Stopped processes: freezing a tree, borrowing its threads, letting it go.
//!
//! The kernel obeys only the thread that attached: nothing here is `Send`.
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::inventory::{Life, Pid, Thread, Tid};
use crate::remote::Caller;

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

/// A forest whose every thread stands still. It goes on, exactly, when this is dropped.
#[derive(Debug)]
pub struct Tree {
    members: BTreeMap<Pid, Member>,
    not_send: PhantomData<*const ()>,
}

impl Tree {
    /// Seizes and stops `roots` and all their descendants, to a fixpoint over forks, execs and
    /// exits; gives up after `deadline`, and everybody runs on.
    pub fn freeze(_roots: &[Pid], _deadline: Duration) -> Result<Self> {
        Err(Error::Sketch("freezing"))
    }

    /// Who stands.
    #[must_use]
    pub fn members(&self) -> &BTreeMap<Pid, Member> {
        &self.members
    }

    /// What resuming this thread elsewhere takes: registers corrected for restart, rseq aborted.
    pub fn thread(&mut self, _tid: Tid) -> Result<Thread> {
        Err(Error::Sketch("reading a thread"))
    }

    /// Borrows a thread to make calls in it; its context comes back when the loan ends.
    pub fn borrow(&mut self, _tid: Tid) -> Result<Loan<'_>> {
        Err(Error::Sketch("loans"))
    }

    /// Lets everybody go on, as if nothing had happened.
    pub fn thaw(self) -> Result<()> {
        Err(Error::Sketch("thawing"))
    }

    /// Kills everybody, and waits until they are gone.
    pub fn kill(self) -> Result<()> {
        Err(Error::Sketch("killing"))
    }
}

/// A thread on loan: it makes calls for us. Dropping it gives the thread back.
#[derive(Debug)]
pub struct Loan<'tree> {
    tree: PhantomData<&'tree mut Tree>,
}

impl Loan<'_> {
    /// Gives the thread back and says whether that went well.
    pub fn finish(self) -> Result<()> {
        Err(Error::Sketch("loans"))
    }
}

impl Caller for Loan<'_> {
    fn perform(&mut self, _batch: &crate::remote::Batch) -> Result<Vec<crate::remote::Reply>> {
        Err(Error::Sketch("loans"))
    }

    fn steal(&mut self, _fd: crate::remote::RemoteFd) -> Result<std::os::fd::OwnedFd> {
        Err(Error::Sketch("loans"))
    }
}
