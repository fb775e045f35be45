//! Calls that the kernel remembers the caller of: `SO_PEERCRED` names who called socketpair(2),
//! connect(2) or listen(2), and as whom. So they are made inside that process, as that user.
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use nix::libc::{
    self, SOL_SOCKET, SYS_close, SYS_connect, SYS_ioctl, SYS_pidfd_getfd, SYS_pidfd_open,
    SYS_setfsuid, SYS_setgroups, SYS_setresgid, SYS_setresuid,
};
use nix::unistd::{getegid, geteuid, getgroups};

use super::super::{Build, Collect, StandIn};
use super::place::address;
use crate::error::{Error, Result, kernel, kernel_io};
use crate::inventory::Pid;
use crate::remote::{Arg, Batch, Makers, RemoteFd, Reply};
use crate::sys::net;

/// `SO_PEERGROUPS` of `include/uapi/asm-generic/socket.h`, since 4.13.
const SO_PEERGROUPS: i32 = 59;

/// Who did it, and as whom.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Maker {
    #[prost(int32, tag = "1")]
    pub(crate) pid: i32,
    #[prost(uint32, tag = "2")]
    uid: u32,
    #[prost(uint32, tag = "3")]
    gid: u32,
    #[prost(uint32, repeated, tag = "4")]
    groups: Vec<u32>,
    /// One who has died, and for whom this member does it if his number is somebody else's by now.
    #[prost(int32, optional, tag = "5")]
    instead: Option<i32>,
}

impl Maker {
    /// `SO_PEERCRED`; `None` if nothing is remembered. Who lives outside the tree is stood in for by
    /// the holder.
    pub(crate) fn of(fd: BorrowedFd<'_>, with: &Collect<'_>) -> Result<Option<Self>> {
        let told = net::get(fd, SOL_SOCKET, libc::SO_PEERCRED, 12).map_err(kernel("getsockopt"))?;
        let words: Vec<_> =
            told.as_chunks().0.iter().map(|word| u32::from_ne_bytes(*word)).collect();
        let [pid, uid, gid] = words[..] else { return Ok(None) };
        if uid == u32::MAX {
            return Ok(None);
        }
        let (pid, instead) = match pid.cast_signed() {
            pid if with.tree.member(pid).is_some() => (pid, None),
            pid if pid > 0 && !Path::new(&format!("/proc/{pid}")).exists() => {
                (pid, Some(with.holder.0))
            }
            _ => (with.holder.0, None),
        };
        let groups = net::get(fd, SOL_SOCKET, SO_PEERGROUPS, 4 << 16).unwrap_or_default();
        let groups = groups.as_chunks().0.iter().map(|gid| u32::from_ne_bytes(*gid)).collect();
        Ok(Some(Self { pid, uid, gid, groups, instead }))
    }

    /// A process as it is now.
    pub(crate) fn now(pid: Pid) -> Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::metadata(format!("/proc/{pid}")).map_err(kernel_io("stat"))?;
        let (uid, gid) = (meta.uid(), meta.gid());
        Ok(Self { pid: pid.0, uid, gid, groups: Vec::new(), instead: None })
    }

    /// Who is to be there for it.
    pub(crate) fn stand_in(&self) -> Option<StandIn> {
        self.instead.map(|_| StandIn { pid: Pid(self.pid), needed: false })
    }

    /// Who does it.
    pub(crate) fn process(&self, with: &mut Build<'_>) -> Pid {
        match self.instead {
            Some(instead) if with.makers.maker(Pid(self.pid)).is_err() => Pid(instead),
            _ => Pid(self.pid),
        }
    }

    /// Makes one call there, as that user; a blank goes on with our credentials.
    pub(crate) fn call<const N: usize>(
        &self,
        with: &mut Build<'_>,
        name: &'static str,
        number: i64,
        args: [Arg; N],
    ) -> Result<Reply> {
        let ours = getgroups().map_err(kernel("getgroups"))?;
        let ours: Vec<u32> = ours.into_iter().map(nix::unistd::Gid::as_raw).collect();
        let privileged = geteuid().is_root();
        let mut batch = Batch::default();
        if privileged {
            become_user(&mut batch, &self.groups, self.gid, self.uid, false);
        }
        batch.call(name, number, args);
        if privileged {
            become_user(&mut batch, &ours, getegid().as_raw(), geteuid().as_raw(), true);
        }
        let process = self.process(with);
        let replies = with.makers.maker(process)?.perform(&batch)?;
        replies.iter().try_for_each(|reply| reply.value().map(drop))?;
        let made = replies.into_iter().find(|reply| reply.call == name);
        made.ok_or_else(|| Error::Record(name.into(), None))
    }

    /// Has it connect one of our sockets to the one whose file this is. By a number of its own: what
    /// we have open is hidden from another user.
    pub(crate) fn connect_to(
        &self,
        with: &mut Build<'_>,
        fd: BorrowedFd<'_>,
        file: BorrowedFd<'_>,
    ) -> Result<()> {
        let process = self.process(with);
        let lent = lend(with.makers, process, file)?;
        let to = address(format!("/proc/self/fd/{}", lent.0).as_bytes());
        let done = self.connect(with, fd, to);
        take_back(with.makers, process, lent)?;
        done
    }

    /// Has it connect one of our sockets to an address.
    pub(crate) fn connect(
        &self,
        with: &mut Build<'_>,
        fd: BorrowedFd<'_>,
        to: Vec<u8>,
    ) -> Result<()> {
        let len = i64::try_from(to.len()).unwrap_or(0);
        self.call_on(with, fd, ("connect", SYS_connect), [Arg::In(to), len.into()])
    }

    /// Has it make a call on one of our sockets.
    pub(crate) fn call_on(
        &self,
        with: &mut Build<'_>,
        fd: BorrowedFd<'_>,
        (name, number): (&'static str, i64),
        [second, third]: [Arg; 2],
    ) -> Result<()> {
        let process = self.process(with);
        let lent = lend(with.makers, process, fd)?;
        let done = self.call(with, name, number, [lent.into(), second, third]);
        take_back(with.makers, process, lent)?;
        done.map(drop)
    }
}

/// Afterwards files are opened as we would: only who asks is of interest, not what he may open. (The
/// permissions of a socket's file may have changed since.)
fn become_user(batch: &mut Batch, groups: &[u32], gid: u32, uid: u32, again: bool) {
    let list: Vec<u8> = groups.iter().flat_map(|gid| gid.to_ne_bytes()).collect();
    let count = i64::try_from(groups.len()).unwrap_or(0);
    let to_user = |batch: &mut Batch| {
        batch.call("setresuid", SYS_setresuid, [(-1).into(), uid.into(), (-1).into()]);
    };
    if again {
        to_user(batch); // First the user, whose rights the others take.
    }
    batch.call("setresgid", SYS_setresgid, [(-1).into(), gid.into(), (-1).into()]);
    batch.call("setgroups", SYS_setgroups, [count.into(), Arg::In(list)]);
    if !again {
        to_user(batch);
        batch.call("setfsuid", SYS_setfsuid, [geteuid().as_raw().into()]);
    }
}

/// Gives a process a duplicate of our descriptor.
fn lend(makers: &mut dyn Makers, to: Pid, fd: BorrowedFd<'_>) -> Result<RemoteFd> {
    let mut maker = makers.maker(to)?;
    let number = |reply: &[Reply]| -> Result<i64> { reply.first().map_or(Ok(-1), Reply::value) };
    let mut batch = Batch::default();
    batch.call("pidfd_open", SYS_pidfd_open, [std::process::id().into(), 0.into()]);
    let us = number(&maker.perform(&batch)?)?;
    let mut batch = Batch::default();
    batch.call("pidfd_getfd", SYS_pidfd_getfd, [us.into(), fd.as_raw_fd().into(), 0.into()]);
    batch.call("close", SYS_close, [us.into()]);
    let lent = number(&maker.perform(&batch)?)?;
    Ok(RemoteFd(i32::try_from(lent).unwrap_or(-1)))
}

fn take_back(makers: &mut dyn Makers, from: Pid, lent: RemoteFd) -> Result<()> {
    let mut batch = Batch::default();
    batch.call("close", SYS_close, [lent.into()]);
    makers.maker(from)?.perform(&batch).map(drop)
}

/// Has a process make an ioctl(2) on one of our descriptors.
pub(crate) fn ioctl(
    makers: &mut dyn Makers,
    process: Pid,
    fd: BorrowedFd<'_>,
    (request, argument): (libc::Ioctl, Arg),
) -> Result<()> {
    let lent = lend(makers, process, fd)?;
    let mut batch = Batch::default();
    let request = i64::try_from(request).unwrap_or_default();
    batch.call("ioctl", SYS_ioctl, [lent.into(), request.into(), argument]);
    let replies = makers.maker(process)?.perform(&batch)?;
    take_back(makers, process, lent)?;
    replies.first().map_or(Ok(0), Reply::value).map(drop)
}
