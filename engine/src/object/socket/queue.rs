//! What waits in a Unix socket: bytes or messages, with descriptors and credentials.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::libc::{
    self, FIONREAD, POLLIN, SO_PASSCRED, SO_PEEK_OFF, SOCK_SEQPACKET, SOCK_STREAM, SOL_SOCKET,
};

use super::super::{Build, Collect};
use super::diag::UnixSocket;
use super::{create, place};
use crate::error::{Cause, Error, Result, kernel};
use crate::inventory::{End, OpenFileId};
use crate::sys::{net, poll_now, scm};

/// One message, or one run of a stream; its bytes are kept apart.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Message {
    #[prost(uint64, tag = "1")]
    len: u64,
    /// Open files in flight with it.
    #[prost(uint32, repeated, tag = "2")]
    passed: Vec<u32>,
    /// Pid, uid and gid of the sender, if the receiver is told.
    #[prost(uint32, repeated, tag = "3")]
    signed: Vec<u32>,
    /// `sun_path` of the sender of a datagram.
    #[prost(bytes = "vec", tag = "4")]
    sender: Vec<u8>,
    /// That sender itself, if the tree has it.
    #[prost(uint32, optional, tag = "5")]
    sender_file: Option<u32>,
}

/// What cannot be sent again as it was.
pub(crate) const UNREPEATABLE: &str = "a message in flight is empty, out of band, signed by a process that has gone, or mixes \
     descriptors with other bytes of a stream";

/// Reads what waits at `fd`, which stays there; `Err(cause)` inside if it could not be sent again.
pub(crate) fn collect(
    with: &mut Collect<'_>,
    end: End,
    fd: BorrowedFd<'_>,
    kind: i32,
    cause: &Cause,
) -> Result<Vec<Message>> {
    let waiting = net::count(fd, FIONREAD).map_err(kernel("ioctl"))?;
    let seen = look(fd, kind, waiting).map_err(kernel("recvmsg"))?;
    let total: usize = seen.iter().map(|message| message.bytes.len()).sum();
    let missed = kind != libc::SOCK_DGRAM && total != waiting;
    let lost = seen.iter().any(|message| message.cut || message.bytes.is_empty());
    let gone = |message: &scm::Message| {
        message.signed.is_some_and(|(pid, ..)| with.tree.member(pid).is_none())
    };
    if missed || lost || seen.iter().any(gone) {
        with.obstacle(cause);
    }
    with.keep(end, seen.iter().flat_map(|message| &message.bytes).copied().collect());
    seen.into_iter().map(|message| record(with, message)).collect()
}

/// In most cases one look shows that there is nothing more to see.
fn look(fd: BorrowedFd<'_>, kind: i32, waiting: usize) -> nix::Result<Vec<scm::Message>> {
    let offset = net::get_int(fd, SOL_SOCKET, SO_PEEK_OFF)?;
    if waiting == 0 && (kind == SOCK_STREAM || !poll_now(fd, POLLIN)?) {
        return Ok(Vec::new());
    }
    if offset < 0 && waiting == 0 {
        // Something is there: an empty message, or the end of a shut socket.
        let ended = poll_now(fd, libc::POLLRDHUP | libc::POLLHUP)?;
        let empty = if ended && kind == SOCK_SEQPACKET { None } else { scm::peek(fd, 1)? };
        return Ok(empty.into_iter().collect());
    }
    let signed = net::get_int(fd, SOL_SOCKET, SO_PASSCRED)? != 0;
    if kind == SOCK_STREAM && offset < 0 && !signed {
        let first = scm::peek(fd, waiting)?.unwrap_or_default();
        if first.bytes.len() == waiting && first.passed.is_empty() {
            return Ok(vec![first]);
        }
    }
    let largest = net::get_int(fd, SOL_SOCKET, libc::SO_SNDBUF)?.unsigned_abs();
    let room = waiting.max(usize::try_from(largest).unwrap_or(0)).max(1 << 20);
    scm::peek_all(fd, kind == SOCK_STREAM, room)
}

fn record(with: &mut Collect<'_>, message: scm::Message) -> Result<Message> {
    let signed = message.signed.map(|(pid, uid, gid)| vec![pid.cast_unsigned(), uid, gid]);
    let sender_file = sender_file(with, &message.sender);
    Ok(Message {
        len: message.bytes.len() as u64,
        passed: message
            .passed
            .into_iter()
            .map(|file| Ok(with.tree.adopt(file)?.0))
            .collect::<Result<_>>()?,
        signed: signed.unwrap_or_default(),
        sender: message.sender,
        sender_file: sender_file.map(|id| id.0),
    })
}

/// Whoever has this abstract name: a path can be bound again where nobody sees it, but not this.
fn sender_file(with: &Collect<'_>, name: &[u8]) -> Option<OpenFileId> {
    let named = |(inode, socket): (u64, &UnixSocket)| (socket.name == name).then_some(inode);
    (name.first() == Some(&0))
        .then(|| with.sockets.iter().find_map(named))?
        .and_then(|inode| with.tree.open_file_of(inode))
}

/// How many descriptors are in flight by fdinfo, and by what was seen: more than a look shows?
pub(crate) fn all_seen(with: &mut Collect<'_>, queues: &[&[Message]]) -> bool {
    let told = with.info.take_all("scm_fds").into_iter().filter_map(|n| n.parse::<usize>().ok());
    let seen = queues.iter().copied().flatten().map(|message| message.passed.len());
    told.sum::<usize>() == seen.sum()
}

/// Open files that must be there before the queue is.
pub(crate) fn needs(messages: &[Message]) -> impl Iterator<Item = OpenFileId> + '_ {
    let passed = messages.iter().flat_map(|message| message.passed.iter().copied());
    let senders = messages.iter().filter_map(|message| message.sender_file);
    passed.chain(senders).map(OpenFileId)
}

/// How large the pieces were in which the bytes of a stream were sent, as far as that shows: the kernel
/// accounts for more than their bytes, the more the smaller they are, and who found no room for
/// another must find none. Kernel: `sock_alloc_send_pskb()` in `net/core/sock.c`.
pub(crate) fn grain(messages: &[Message], accounted: u64) -> Result<usize> {
    let len = messages.iter().map(|message| message.len).fold(0, u64::saturating_add);
    if len == 0 || accounted <= len {
        return Ok(usize::MAX);
    }
    let mut size = LARGEST;
    while size > 1 {
        let pieces = len.div_ceil(size as u64);
        if pieces.saturating_mul(cost(size)?) >= accounted {
            break;
        }
        size /= 2;
    }
    Ok(size)
}

/// No piece is larger (`unix_stream_sendmsg()` in `net/unix/af_unix.c`).
const LARGEST: usize = 1 << 15;

/// What one piece of so many bytes is accounted for.
fn cost(size: usize) -> Result<u64> {
    let (from, _to) = net::pair(SOCK_STREAM).map_err(kernel("socketpair"))?;
    nix::unistd::write(&from, &vec![0; size]).map_err(kernel("write"))?;
    Ok(net::count(from.as_fd(), libc::TIOCOUTQ).map_err(kernel("ioctl"))? as u64)
}

/// Sends everything again that waited at `end`: through `through`, or from where each came to `to`;
/// in pieces of `grain`.
pub(crate) fn send(
    with: &Build<'_>,
    end: End,
    messages: &[Message],
    through: Option<BorrowedFd<'_>>,
    to: Option<&str>,
    grain: usize,
) -> Result<()> {
    let len = messages.iter().map(|message| message.len).fold(0, u64::saturating_add);
    let kept = with.kept(end, len)?;
    let mut rest = kept.as_slice();
    for message in messages {
        let len = usize::try_from(message.len).unwrap_or(usize::MAX);
        let damaged = || Error::Record("queue of a socket".into(), None);
        let (bytes, after) = rest.split_at_checked(len).ok_or_else(damaged)?;
        let passed = message.passed.iter().map(|id| with.open_file(OpenFileId(*id)));
        let passed = passed.collect::<Result<Vec<_>>>()?;
        let own;
        let from = match (through, message.sender_file) {
            (Some(through), _) => through,
            (None, Some(id)) => with.open_file(OpenFileId(id))?,
            (None, None) => {
                own = sender(&message.sender)?;
                own.as_fd()
            }
        };
        let (mut bytes, mut passed) = (bytes, passed.as_slice());
        while bytes.len() > grain {
            let (now, later) = bytes.split_at(grain);
            send_one(from, now, passed, message.signed(), to)?;
            (bytes, passed) = (later, &[]);
        }
        send_one(from, bytes, passed, message.signed(), to)?;
        rest = after;
    }
    Ok(())
}

fn send_one(
    from: BorrowedFd<'_>,
    mut bytes: &[u8],
    passed: &[BorrowedFd<'_>],
    signed: Option<(i32, u32, u32)>,
    to: Option<&str>,
) -> Result<()> {
    let mut passed = passed;
    while !bytes.is_empty() {
        let done = scm::send(from, bytes, passed, signed, to).map_err(kernel("sendmsg"))?;
        bytes = bytes.get(done..).unwrap_or_default();
        passed = &[]; // As at the first time: they went with the first part.
    }
    Ok(())
}

/// A socket that stands in for a sender outside the tree: a message remembers its name.
fn sender(name: &[u8]) -> Result<OwnedFd> {
    let fd = create(libc::AF_UNIX, libc::SOCK_DGRAM, 0)?;
    place::Name { path: name.to_vec(), file: None }.bind(fd.as_fd())?;
    Ok(fd)
}

impl Message {
    fn signed(&self) -> Option<(i32, u32, u32)> {
        let [pid, uid, gid] = self.signed[..] else { return None };
        Some((pid.cast_signed(), uid, gid))
    }

    /// Whether its receiver is told who sent it.
    pub(crate) fn is_signed(&self) -> bool {
        !self.signed.is_empty()
    }

    /// The names that datagrams came from.
    #[cfg(test)]
    pub(crate) fn sender(&self) -> &[u8] {
        &self.sender
    }
}
