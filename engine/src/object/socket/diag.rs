//! What only `sock_diag(7)` tells of Unix sockets: who is connected to whom, who waits at whose door.
//!
//! One dump serves a whole checkpoint. It sees the network namespace of the asking process, which is
//! the tree's. Kernel: `net/unix/diag.c`, `include/uapi/linux/{netlink,sock_diag,unix_diag}.h`.
//! Deliberately absent: inet sockets, which getsockopt(2) tells enough of.
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

/// All Unix sockets of our network namespace, by inode number.
#[derive(Debug, Clone, Default)]
pub struct Sockets(BTreeMap<u64, UnixSocket>);

impl Sockets {
    /// Asks the kernel for all.
    pub fn dump() -> Result<Self> {
        let link = ask(NLM_F_DUMP, 0)?;
        let (mut all, mut room) = (BTreeMap::new(), vec![0; ROOM]);
        loop {
            let len = receive(&link, &mut room)?;
            let answer = parse(room.get(..len).unwrap_or_default()).ok_or_else(damaged)?;
            all.extend(answer.sockets);
            match answer.end {
                None => {}
                Some(0) => return Ok(Self(all)),
                Some(errno) => return Err(Error::Kernel("sock_diag", Errno::from_raw(errno))),
            }
        }
    }

    /// One of them. A dump may miss one while strangers come and go: then it is asked for by name.
    #[must_use]
    pub fn get(&self, inode: u64) -> Option<UnixSocket> {
        self.0.get(&inode).cloned().or_else(|| one(inode).ok().flatten())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &UnixSocket)> {
        self.0.iter().map(|(inode, socket)| (*inode, socket))
    }
}

fn one(inode: u64) -> Result<Option<UnixSocket>> {
    let Ok(number @ 1..) = u32::try_from(inode) else { return Ok(None) };
    let link = ask(0, number)?;
    let mut room = vec![0; ROOM];
    let len = receive(&link, &mut room)?;
    let answer = parse(room.get(..len).unwrap_or_default()).ok_or_else(damaged)?;
    Ok(answer.sockets.into_iter().next().map(|(_, socket)| socket))
}

fn damaged() -> Error {
    Error::Kernel("sock_diag", Errno::EBADMSG)
}

/// Sends a request for all, or for one, of any state.
fn ask(flags: u16, inode: u32) -> Result<OwnedFd> {
    let (family, protocol) = (AddressFamily::Netlink, SockProtocol::NetlinkSockDiag);
    let link = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol);
    let link = link.map_err(kernel("socket"))?;
    let to = NetlinkAddr::new(0, 0);
    sendto(link.as_raw_fd(), &request(flags, inode), &to, MsgFlags::empty())
        .map_err(kernel("sendto"))?;
    Ok(link)
}

fn receive(link: &OwnedFd, room: &mut [u8]) -> Result<usize> {
    recv(link.as_raw_fd(), room, MsgFlags::empty()).map_err(kernel("recv"))
}

/// `struct nlmsghdr` with `struct unix_diag_req`: any state, any cookie.
fn request(flags: u16, inode: u32) -> Vec<u8> {
    let family = u32::from(AF_UNIX.cast_unsigned().to_le_bytes().first().copied().unwrap_or(0));
    let body = [family.to_le(), u32::MAX, inode, SHOW, u32::MAX, u32::MAX];
    let len = u32::try_from(HEADER + size_of_val(&body)).unwrap_or(0);
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    bytes.extend([0; 8]); // Sequence number and port: the one request of this socket.
    bytes.extend(body.iter().flat_map(|word| word.to_ne_bytes()));
    bytes
}

/// One message of the kernel's.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    sockets: Vec<(u64, UnixSocket)>,
    /// The last one: 0, or an error.
    end: Option<i32>,
}

/// `None` if it is not what the headers say.
fn parse(mut bytes: &[u8]) -> Option<Answer> {
    let mut answer = Answer::default();
    while !bytes.is_empty() {
        let len = usize::try_from(word(bytes, 0)?).ok()?;
        let body = bytes.get(HEADER..len)?;
        match half(bytes, 4)? {
            SOCK_DIAG_BY_FAMILY => answer.sockets.push(parse_socket(body)?),
            NLMSG_DONE => answer.end = Some(0),
            NLMSG_ERROR => answer.end = Some(word(body, 0)?.cast_signed().checked_neg()?),
            _ => return None,
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(answer)
}

/// `struct unix_diag_msg` and its attributes. Unknown ones tell of something else.
fn parse_socket(body: &[u8]) -> Option<(u64, UnixSocket)> {
    const LISTEN: u8 = 10;
    let mut socket = UnixSocket {
        kind: *body.get(1)?,
        listening: *body.get(2)? == LISTEN,
        ..Default::default()
    };
    let mut rest = body.get(HEADER..)?;
    while !rest.is_empty() {
        let len = usize::from(half(rest, 0)?);
        let value = rest.get(ATTRIBUTE..len)?;
        match half(rest, 2)? {
            0 => socket.name = value.to_vec(),
            2 => socket.peer = Some(word(value, 0)?.into()),
            3 => socket.waiting = words(value),
            4 => socket.unread = word(value, 4)?,
            6 => socket.shutdown = *value.first()?,
            _ => {}
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Some((word(body, 4)?.into(), socket))
}

fn words(value: &[u8]) -> Vec<u64> {
    value.as_chunks().0.iter().map(|word| u32::from_ne_bytes(*word).into()).collect()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
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
        let all = Sockets::dump().unwrap();
        assert_eq!(all.get(inode(&a)).unwrap().peer, Some(inode(&b)));
        assert_eq!(all.get(inode(&a)).unwrap().shutdown, 1);
        let door = all.get(inode(&door)).unwrap();
        assert_eq!((door.listening, door.waiting), (true, vec![inode(&guest)]));
        assert_eq!(door.name.strip_suffix(&[0]).unwrap(), path.as_os_str().as_encoded_bytes());
        assert_eq!(all.get(inode(&guest)).unwrap().peer, Some(0), "not accepted yet");
        assert_eq!(Sockets::default().get(inode(&a)), all.get(inode(&a)), "asked for by name");
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            parse(&bytes);
            if let Some(kind) = bytes.get_mut(4..6) { kind.copy_from_slice(&20u16.to_ne_bytes()); }
            let len = u32::try_from(bytes.len()).unwrap();
            if let Some(first) = bytes.get_mut(..4) { first.copy_from_slice(&len.to_ne_bytes()); }
            if let Some(answer) = parse(&bytes) { prop_assert!(answer.sockets.len() <= 1); }
        }
    }
}
