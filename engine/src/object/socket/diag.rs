//! What only `sock_diag(7)` tells of Unix sockets: who is connected to whom, who waits at whose door.
//!
//! One dump serves a whole checkpoint. It sees the network namespace of the asking process, which is
//! the tree's. Kernel: `net/unix/diag.c`, `include/uapi/linux/{netlink,sock_diag,unix_diag}.h`.
//! Of inet sockets, getsockopt(2) tells almost enough: see [`dump`].
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc::AF_UNIX;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use crate::error::{Error, Result, kernel};

/// `SOCK_DIAG_BY_FAMILY` of `include/uapi/linux/sock_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `NLMSG_ERROR` and `NLMSG_DONE` of `include/uapi/linux/netlink.h`.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST` and `NLM_F_DUMP`, likewise.
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
/// `struct nlmsghdr` and `struct unix_diag_msg`: both of 16 bytes; `struct nlattr`: of 4.
const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;
/// `UDIAG_SHOW_NAME | PEER | ICONS | RQLEN` of `include/uapi/linux/unix_diag.h`.
const SHOW: u32 = 1 | 4 | 8 | 16;
/// More than a dump puts into one answer (32 KiB), and than a full backlog takes.
const ROOM: usize = 256 << 10;

/// One Unix socket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnixSocket {
    /// `SOCK_STREAM` and so on.
    pub kind: u8,
    /// Listens (`TCP_LISTEN`).
    pub listening: bool,
    /// `sun_path`, with the leading zero of an abstract name; none if unbound.
    pub name: Vec<u8>,
    /// Inode number of its peer: 0 if that has none, being closed or not accepted yet.
    pub peer: Option<u64>,
    /// Those whose connections wait to be accepted.
    pub waiting: Vec<u64>,
    /// Bytes it sent that nobody has read yet; of a listening one, its backlog.
    pub unread: u32,
    /// `RCV_SHUTDOWN` 1, `SEND_SHUTDOWN` 2.
    pub shutdown: u8,
}

/// All Unix sockets of our network namespace, by inode number. The kernel is asked when a tree has some:
/// many have none.
#[derive(Debug, Clone, Default)]
pub struct Sockets(OnceCell<BTreeMap<u64, UnixSocket>>);

impl Sockets {
    /// Asks the kernel for all, once.
    pub(super) fn ask(&self) -> Result<()> {
        if self.0.get().is_none() {
            let mut all = BTreeMap::new();
            dump(&unix_request(0), &mut |body| {
                all.extend([parse_socket(body)?]);
                Some(())
            })?;
            self.0.get_or_init(|| all);
        }
        Ok(())
    }

    /// One of them. A dump may miss one while strangers come and go: then it is asked for by name.
    #[must_use]
    pub fn get(&self, inode: u64) -> Option<UnixSocket> {
        let known = self.0.get().and_then(|all| all.get(&inode).cloned());
        known.or_else(|| one(inode).ok().flatten())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &UnixSocket)> {
        self.0.get().into_iter().flatten().map(|(inode, socket)| (*inode, socket))
    }
}

fn one(inode: u64) -> Result<Option<UnixSocket>> {
    let Ok(number @ 1..) = u32::try_from(inode) else { return Ok(None) };
    let link = ask(0, &unix_request(number))?;
    let mut room = vec![0; ROOM];
    let len = receive(&link, &mut room)?;
    let answer = parse(room.get(..len).unwrap_or_default()).ok_or_else(damaged)?;
    let socket = answer.bodies.first().map(|body| parse_socket(body).ok_or_else(damaged));
    Ok(socket.transpose()?.map(|(_, socket)| socket))
}

/// Asks for all sockets that a request speaks of; `visit` gets what is told of each, and says whether
/// it makes sense.
pub(crate) fn dump(request: &[u8], visit: &mut dyn FnMut(&[u8]) -> Option<()>) -> Result<()> {
    let link = ask(NLM_F_DUMP, request)?;
    let mut room = vec![0; ROOM];
    loop {
        let len = receive(&link, &mut room)?;
        let answer = parse(room.get(..len).unwrap_or_default()).ok_or_else(damaged)?;
        answer.bodies.into_iter().try_for_each(&mut *visit).ok_or_else(damaged)?;
        match answer.end {
            None => {}
            Some(0) => return Ok(()),
            Some(errno) => return Err(Error::Kernel("sock_diag", Errno::from_raw(errno))),
        }
    }
}

fn damaged() -> Error {
    Error::Kernel("sock_diag", Errno::EBADMSG)
}

/// Sends a request for all, or for one.
fn ask(flags: u16, body: &[u8]) -> Result<OwnedFd> {
    let (family, protocol) = (AddressFamily::Netlink, SockProtocol::NetlinkSockDiag);
    let link = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol);
    let link = link.map_err(kernel("socket"))?;
    let to = NetlinkAddr::new(0, 0);
    sendto(link.as_raw_fd(), &request(flags, body), &to, MsgFlags::empty())
        .map_err(kernel("sendto"))?;
    Ok(link)
}

fn receive(link: &OwnedFd, room: &mut [u8]) -> Result<usize> {
    recv(link.as_raw_fd(), room, MsgFlags::empty()).map_err(kernel("recv"))
}

/// `struct unix_diag_req`: any state, any cookie.
fn unix_request(inode: u32) -> Vec<u8> {
    let family = u32::from(AF_UNIX.cast_unsigned().to_le_bytes().first().copied().unwrap_or(0));
    let body = [family.to_le(), u32::MAX, inode, SHOW, u32::MAX, u32::MAX];
    body.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// `struct nlmsghdr` before a request.
fn request(flags: u16, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(HEADER + body.len()).unwrap_or(0);
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    bytes.extend([0; 8]); // Sequence number and port: the one request of this socket.
    bytes.extend(body);
    bytes
}

/// One message of the kernel's.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer<'a> {
    /// What it tells of each socket.
    bodies: Vec<&'a [u8]>,
    /// The last one: 0, or an error.
    end: Option<i32>,
}

/// `None` if it is not what the headers say.
fn parse(mut bytes: &[u8]) -> Option<Answer<'_>> {
    let mut answer = Answer::default();
    while !bytes.is_empty() {
        let len = usize::try_from(word(bytes, 0)?).ok()?;
        let body = bytes.get(HEADER..len)?;
        match half(bytes, 4)? {
            SOCK_DIAG_BY_FAMILY => answer.bodies.push(body),
            NLMSG_DONE => answer.end = Some(0),
            NLMSG_ERROR => answer.end = Some(word(body, 0)?.cast_signed().checked_neg()?),
            _ => return None,
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(answer)
}

/// What follows a socket's own record: `struct nlattr`, each with its value.
pub(crate) fn attributes(mut rest: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut all = Vec::new();
    while !rest.is_empty() {
        let len = usize::from(half(rest, 0)?);
        all.push((half(rest, 2)?, rest.get(ATTRIBUTE..len)?));
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(all)
}

/// `struct unix_diag_msg` and its attributes. Unknown ones tell of something else.
fn parse_socket(body: &[u8]) -> Option<(u64, UnixSocket)> {
    const LISTEN: u8 = 10;
    let mut socket = UnixSocket {
        kind: *body.get(1)?,
        listening: *body.get(2)? == LISTEN,
        ..Default::default()
    };
    for (attribute, value) in attributes(body.get(HEADER..)?)? {
        match attribute {
            0 => socket.name = value.to_vec(),
            2 => socket.peer = Some(word(value, 0)?.into()),
            3 => socket.waiting = words(value),
            4 => socket.unread = word(value, 4)?,
            6 => socket.shutdown = *value.first()?,
            _ => {}
        }
    }
    Some((word(body, 4)?.into(), socket))
}

fn words(value: &[u8]) -> Vec<u64> {
    value.as_chunks().0.iter().map(|word| u32::from_ne_bytes(*word).into()).collect()
}

pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|half| u16::from_ne_bytes(*half))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::fstat;
    use proptest::prelude::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn inode(fd: impl std::os::fd::AsFd) -> u64 {
        fstat(fd).unwrap().st_ino
    }

    #[test]
    fn a_pair_knows_its_peer_and_a_listener_who_waits() {
        let (a, b) = UnixStream::pair().unwrap();
        b.shutdown(std::net::Shutdown::Write).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("door");
        let door = UnixListener::bind(&path).unwrap();
        let guest = UnixStream::connect(&path).unwrap();
        let all = Sockets::default();
        all.ask().unwrap();
        assert_eq!(all.get(inode(&a)).unwrap().peer, Some(inode(&b)));
        assert_eq!(all.get(inode(&a)).unwrap().shutdown, 1);
        let door = all.get(inode(&door)).unwrap();
        assert_eq!((door.listening, door.waiting), (true, vec![inode(&guest)]));
        assert_eq!(door.name.strip_suffix(&[0]).unwrap(), path.as_os_str().as_encoded_bytes());
        assert_eq!(all.get(inode(&guest)).unwrap().peer, Some(0), "not accepted yet");
        let empty = Sockets::default();
        assert_eq!(empty.get(inode(&a)), all.get(inode(&a)), "asked for by name");
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let sound = |bytes: &[u8]| {
                let answer = parse(bytes)?;
                answer.bodies.into_iter().map(parse_socket).collect::<Option<Vec<_>>>()
            };
            sound(&bytes);
            if let Some(kind) = bytes.get_mut(4..6) { kind.copy_from_slice(&20u16.to_ne_bytes()); }
            let len = u32::try_from(bytes.len()).unwrap();
            if let Some(first) = bytes.get_mut(..4) { first.copy_from_slice(&len.to_ne_bytes()); }
            if let Some(sockets) = sound(&bytes) { prop_assert!(sockets.len() <= 1); }
        }
    }
}
