//! Gives our descriptors to blanks, under the numbers the image has.
//!
//! They travel as `SCM_RIGHTS` over one socket pair that all blanks inherit, and land on the lowest
//! free numbers. Tables are filled from below, so a descriptor never lands above its own number, and
//! moves there from the last one back without meeting another.
//! Kernel: unix(7), dup(2), `net/core/scm.c`.
use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{self, F_SETFD, FD_CLOEXEC, O_CLOEXEC};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::blanks::{Loan, done};
use crate::error::{Error, Result, kernel};
use crate::inventory::Inventory;
use crate::remote::{Arg, Batch, Caller, RemoteFd};
use crate::sys::{receipt, scm};

/// At most so many in one message: `SCM_MAX_FD` of `include/net/scm.h` is 253.
const AT_ONCE: usize = 250;

/// Numbers that the smallest table has room for (`NR_OPEN_DEFAULT`).
const SMALL_TABLE: i32 = 64;

/// What one slot of a table shall be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) at: RemoteFd,
    pub(super) cloexec: bool,
    pub(super) file: BorrowedFd<'a>,
}

/// Numbers that will mean something for a moment only.
fn aimed(inventory: &Inventory) -> Result<Vec<i32>> {
    let mut numbers = Vec::new();
    for record in inventory.objects.values() {
        let aims = super::objects::kind(&record.kind)?.aim;
        numbers.extend(aims(&record.state, RemoteFd(-1))?.iter().map(|aimed| aimed.number.0));
    }
    Ok(numbers)
}

/// Our end of the socket pair, and the number that the other has in every blank.
#[derive(Debug)]
pub(super) struct Transport {
    ours: OwnedFd,
    theirs: OwnedFd,
}

impl Transport {
    /// One whose number no table of the image uses.
    pub(super) fn new(inventory: &Inventory) -> Result<Self> {
        let stream = (AddressFamily::Unix, SockType::SeqPacket);
        let (ours, theirs) = socketpair(stream.0, stream.1, None, SockFlag::SOCK_CLOEXEC)
            .map_err(kernel("socketpair"))?;
        let mut used: BTreeSet<i32> = inventory.descriptors.keys().map(|(_, at)| at.0).collect();
        used.extend(aimed(inventory)?);
        let above = used.last().map_or(SMALL_TABLE, |last| last + 1);
        // A table that grew for our sake would stay so: low gaps first, and high ones.
        let gaps = (0..SMALL_TABLE).rev().chain(above..above.saturating_add(64)).chain(0..above);
        for from in gaps.filter(|number| !used.contains(number)) {
            match fcntl(&theirs, FcntlArg::F_DUPFD_CLOEXEC(from)).map(crate::sys::own) {
                Ok(theirs) if theirs.as_raw_fd() == from => return Ok(Self { ours, theirs }),
                Ok(_) | Err(Errno::EMFILE | Errno::EINVAL) => {}
                Err(errno) => return Err(Error::Kernel("fcntl", errno)),
            }
        }
        Err(Error::Kernel("fcntl", Errno::EMFILE))
    }

    /// Its number in blanks.
    pub(super) fn number(&self) -> i32 {
        self.theirs.as_raw_fd()
    }

    /// Closes all but it.
    pub(super) fn alone(&self, batch: &mut Batch) {
        let number = self.number();
        let to_end = i64::from(u32::MAX);
        let close = libc::SYS_close_range;
        if number > 0 {
            batch.call("close_range", close, [0.into(), (number - 1).into(), 0.into()]);
        }
        batch.call("close_range", close, [(number + 1).into(), to_end.into(), 0.into()]);
    }

    /// Closes it too.
    pub(super) fn close(&self, batch: &mut Batch) {
        batch.call("close", libc::SYS_close, [self.number().into()]);
    }

    /// Gives `files`; under which numbers they arrived, in order.
    pub(super) fn give(
        &self,
        to: &mut Loan<'_>,
        files: &[BorrowedFd<'_>],
    ) -> Result<Vec<RemoteFd>> {
        let mut arrived = Vec::with_capacity(files.len());
        for some in files.chunks(AT_ONCE) {
            scm::send(self.ours.as_fd(), b"*", some, None, None).map_err(kernel("sendmsg"))?;
            arrived.extend(self.receive(to, some.len())?);
        }
        Ok(arrived)
    }

    /// One recvmsg(2) in the blank.
    fn receive(&self, to: &mut Loan<'_>, count: usize) -> Result<Vec<RemoteFd>> {
        let layout = receipt::Receipt::for_descriptors(count);
        let block = to.block();
        // Behind what the batch itself lays out: it has no data of its own.
        let base = block.data_address(0);
        block.put(0, &layout.bytes(base)).map_err(kernel("recvmsg"))?;
        let mut batch = Batch::default();
        let header = base.cast_signed();
        batch.call("recvmsg", libc::SYS_recvmsg, [self.number().into(), header.into(), 0.into()]);
        done(&to.perform(&batch)?)?;
        let mut control = vec![0; layout.len()];
        to.block().get(0, &mut control).map_err(kernel("recvmsg"))?;
        let numbers = layout.descriptors(&control);
        if numbers.len() != count {
            return Err(Error::Kernel("recvmsg", Errno::EMFILE));
        }
        Ok(numbers.into_iter().map(RemoteFd).collect())
    }

    /// Fills a table; `wanted` is in ascending order of numbers.
    pub(super) fn plant(&self, to: &mut Loan<'_>, wanted: &[Wanted<'_>]) -> Result<()> {
        for some in wanted.chunks(AT_ONCE) {
            let files: Vec<_> = some.iter().map(|one| one.file).collect();
            let arrived = self.give(to, &files)?;
            let mut batch = Batch::default();
            for (one, arrived) in some.iter().zip(arrived).rev() {
                let cloexec = if one.cloexec { O_CLOEXEC } else { 0 };
                if arrived != one.at {
                    let args = [arrived.into(), one.at.into(), cloexec.into()];
                    batch.call("dup3", libc::SYS_dup3, args);
                    batch.call("close", libc::SYS_close, [arrived.into()]);
                } else if one.cloexec {
                    let args = [one.at.into(), F_SETFD.into(), FD_CLOEXEC.into()];
                    batch.call("fcntl", libc::SYS_fcntl, args);
                }
            }
            done(&to.perform(&batch)?)?;
        }
        Ok(())
    }

    /// Opens nothing, uses `files` in the blank under the numbers that `with` is told, and closes
    /// them there.
    pub(super) fn lend(
        &self,
        to: &mut Loan<'_>,
        files: &[BorrowedFd<'_>],
        with: impl FnOnce(&[RemoteFd], &mut Batch),
    ) -> Result<()> {
        let arrived = self.give(to, files)?;
        let mut batch = Batch::default();
        with(&arrived, &mut batch);
        for fd in arrived {
            batch.call("close", libc::SYS_close, [Arg::from(fd)]);
        }
        done(&to.perform(&batch)?)
    }
}
