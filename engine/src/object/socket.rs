//! What all kinds of sockets share: what sort one is, its options, its queue, who made it.
pub(super) mod diag;
pub(super) mod makers;
pub(super) mod options;
pub(super) mod place;
pub(super) mod queue;

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::libc::{self, AF_UNIX, S_IFMT, S_IFSOCK, SOCK_DGRAM, SOL_SOCKET};

use self::diag::{Sockets, UnixSocket};
use crate::error::{Result, kernel};
use crate::sys::net;

/// What is cheap to know about a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// `AF_*`.
    pub domain: i32,
    /// `SOCK_*`.
    pub kind: i32,
    /// `IPPROTO_*` or `NETLINK_*`.
    pub protocol: i32,
    /// Of a Unix socket: whom it is connected with.
    pub peer: Peer,
}

/// The other side of a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// It is connected to nobody, or it is none of ours to know (not a Unix socket).
    None,
    /// Its connection waits to be accepted.
    Waiting,
    /// Both are connected to each other: the other's inode number.
    Mutual(u64),
    /// It sends to this one, which sends elsewhere or nowhere.
    OneWay(u64),
    /// It was closed.
    Gone,
}

impl Socket {
    /// Looks at our duplicate; `None` if it is no socket at all.
    pub fn of(fd: BorrowedFd<'_>, mode: u32, inode: u64, all: &Sockets) -> Result<Option<Self>> {
        if mode & S_IFMT != S_IFSOCK || is_place(fd) {
            return Ok(None);
        }
        let number = |name| net::get_int(fd, SOL_SOCKET, name).map_err(kernel("getsockopt"));
        let domain = number(libc::SO_DOMAIN)?;
        let (kind, protocol) = (number(libc::SO_TYPE)?, number(libc::SO_PROTOCOL)?);
        let mut peer = Peer::None;
        if domain == AF_UNIX {
            all.ask()?;
            peer = Peer::of(inode, all);
        }
        Ok(Some(Self { domain, kind, protocol, peer }))
    }
}

/// A socket's *file* held by `O_PATH` is no socket.
fn is_place(fd: BorrowedFd<'_>) -> bool {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(fd, FcntlArg::F_GETFL).is_ok_and(|flags| flags & OFlag::O_PATH.bits() != 0)
}

impl Peer {
    fn of(inode: u64, all: &Sockets) -> Self {
        let Some(own) = all.get(inode) else { return Self::None };
        match own.peer {
            None => Self::None,
            Some(0) if own.kind_is(SOCK_DGRAM) || own.shutdown == 3 => Self::Gone,
            Some(0) => Self::Waiting,
            Some(peer) if peer != inode && all.get(peer).and_then(|it| it.peer) == Some(inode) => {
                Self::Mutual(peer)
            }
            Some(peer) => Self::OneWay(peer),
        }
    }
}

impl UnixSocket {
    fn kind_is(&self, kind: i32) -> bool {
        i32::from(self.kind) == kind
    }
}

/// socket(2), never inherited, never blocking: the open file puts its own flags back.
pub(super) fn create(domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd> {
    net::socket(domain, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, protocol)
        .map_err(kernel("socket"))
}

/// A name under which any process of this PID namespace reaches what `fd` refers to.
pub(super) fn through_proc(fd: BorrowedFd<'_>) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd())
}

/// Why a socket of another network namespace is an obstacle: neither would it be built there, nor is
/// it in our dump.
pub(super) const ELSEWHERE: &str = "it belongs to another network namespace";
/// What helps.
pub(super) const STAY: &str = "have the program stay in the network namespace it was started in";

/// Whether a socket belongs to another network namespace than ours.
pub(super) fn is_elsewhere(fd: BorrowedFd<'_>) -> Result<bool> {
    use nix::sys::stat::{fstat, stat};
    let Ok(theirs) = net::namespace(fd) else { return Ok(false) }; // Only the privileged can ask.
    let theirs = fstat(&theirs).map_err(kernel("fstat"))?.st_ino;
    Ok(stat("/proc/self/ns/net").map_err(kernel("stat"))?.st_ino != theirs)
}
