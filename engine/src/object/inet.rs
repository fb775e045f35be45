//! Internet sockets: TCP that is not connected, or listens; UDP, UDP-Lite, raw and ping sockets.
//!
//! A connection is given up if that is wished: the program finds a socket that was reset. Otherwise it
//! is an obstacle. Kernel: `net/ipv4/{af_inet,tcp,udp,raw}.c`, `net/ipv6/`.
//! Deliberately absent: datagrams that wait, for only their sender could send them again.
mod multicast;
mod reset;
mod shutdown;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc::{
    self, AF_INET, AF_INET6, FIONREAD, IP_FREEBIND, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, POLLERR,
    POLLIN, SO_ACCEPTCONN, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET,
};

use self::multicast::Membership;
use super::socket::options::{self, When};
use super::socket::{ELSEWHERE, STAY, Socket, create, is_elsewhere};
use super::view::{SocketView, sort};
use super::{Build, Check, Claim, Collect, Ends, Evidence, Identity, Missing, Object, View};
use crate::error::{Cause, Error, Obstacle, Result, kernel};
use crate::inventory::End;
use crate::sys::{net, poll_now};

/// Streams.
pub(super) struct Tcp;
/// All others.
pub(super) struct Inet;
const WHOLE: End = End(0);
/// `IPPROTO_MPTCP` of `include/uapi/linux/in.h`: listens like TCP.
const IPPROTO_MPTCP: i32 = 262;

/// `include/uapi/linux/in6.h`, since 4.15.
const IPV6_FREEBIND: i32 = 78;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    #[prost(int32, tag = "1")]
    family: i32,
    /// `SOCK_*`.
    #[prost(int32, tag = "2")]
    r#type: i32,
    #[prost(int32, tag = "3")]
    proto: i32,
    /// `struct sockaddr`, if bound.
    #[prost(bytes = "vec", tag = "4")]
    local: Vec<u8>,
    /// Where datagrams go.
    #[prost(bytes = "vec", tag = "5")]
    peer: Vec<u8>,
    #[prost(uint32, optional, tag = "6")]
    backlog: Option<u32>,
    /// What a stream has been through.
    #[prost(enumeration = "Past", tag = "7")]
    past: i32,
    /// Of datagrams: whether it reads (1) or writes (2) no more.
    #[prost(uint32, tag = "8")]
    shut: u32,
    #[prost(message, repeated, tag = "10")]
    opts: Vec<options::Value>,
    #[prost(message, repeated, tag = "11")]
    memberships: Vec<Membership>,
    /// The host had its address no more, or never had it (`IP_FREEBIND`).
    #[prost(bool, tag = "12")]
    foreign: bool,
}

/// Of a stream that is not connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
enum Past {
    /// It never was.
    Fresh = 0,
    /// It was, and the program has yet to be told how that ended; or it still is, and is given up.
    Reset = 1,
    /// It was, and the program knows.
    Over = 2,
}

const ESTABLISHED: Cause = Cause {
    code: "tcp:established",
    reason: "it is a connection",
    remedy: "close it, or use --tcp close: the program then finds it reset",
};
const PENDING: Cause = Cause {
    code: "tcp:pending",
    reason: "connections wait to be accepted",
    remedy: "let the program accept them, or use --tcp close",
};
const QUEUED: Cause = Cause {
    code: "inet:queued",
    reason: "datagrams wait in it, which only their senders could send again",
    remedy: "let the program read them",
};
const PORT_TAKEN: Cause = Cause {
    code: "tcp:taken",
    reason: "somebody else has its address, or this host does not",
    remedy: "end the program that has it, or give the address to this host",
};
const NAME_TAKEN: Cause = Cause { code: "inet:taken", ..PORT_TAKEN };
const TCP_FOREIGN: Cause = Cause { code: "tcp:namespace", reason: ELSEWHERE, remedy: STAY };
const FOREIGN: Cause = Cause { code: "inet:namespace", reason: ELSEWHERE, remedy: STAY };
const SOURCES: Cause = Cause {
    code: "inet:sources",
    reason: "it is a member of a multicast group that filters sources",
    remedy: "see SUPPORT.md",
};

impl Object for Tcp {
    const NAME: &'static str = "tcp";
    const CAUSES: &'static [Cause] = &[ESTABLISHED, PENDING, PORT_TAKEN, TCP_FOREIGN];
    type State = State;

    fn claims(seen: &Evidence) -> Option<Claim> {
        claim(seen, |socket| {
            socket.kind == SOCK_STREAM && matches!(socket.protocol, IPPROTO_TCP | IPPROTO_MPTCP)
        })
    }

    fn collect(with: &mut Collect<'_>) -> Result<State> {
        let Some(fd) = with.end(WHOLE) else { return Ok(State::default()) };
        let mut state = State::of(fd)?;
        if is_elsewhere(fd)? {
            with.obstacle(&TCP_FOREIGN);
        }
        if net::get_int(fd, SOL_SOCKET, SO_ACCEPTCONN).map_err(kernel("getsockopt"))? != 0 {
            state.read_door(fd, with)?;
        } else {
            state.read_stream(fd, with)?;
        }
        Ok(state)
    }

    fn check(state: &State, _: &Check) -> Vec<Missing> {
        state.check(&PORT_TAKEN)
    }

    fn build(state: &State, _: &mut Build<'_>) -> Result<Ends> {
        state.build()
    }

    fn view(state: &State, _: End) -> View {
        state.view()
    }
}

impl Object for Inet {
    const NAME: &'static str = "inet";
    const CAUSES: &'static [Cause] = &[QUEUED, SOURCES, NAME_TAKEN, FOREIGN];
    type State = State;

    fn claims(seen: &Evidence) -> Option<Claim> {
        claim(seen, |socket| matches!(socket.kind, libc::SOCK_DGRAM | libc::SOCK_RAW))
    }

    fn collect(with: &mut Collect<'_>) -> Result<State> {
        let Some(fd) = with.end(WHOLE) else { return Ok(State::default()) };
        let mut state = State::of(fd)?;
        if is_elsewhere(fd)? {
            with.obstacle(&FOREIGN);
        }
        state.read_datagrams(fd, with)?;
        Ok(state)
    }

    fn check(state: &State, _: &Check) -> Vec<Missing> {
        state.check(&NAME_TAKEN)
    }

    fn build(state: &State, _: &mut Build<'_>) -> Result<Ends> {
        state.build()
    }

    fn view(state: &State, _: End) -> View {
        state.view()
    }
}

fn claim(seen: &Evidence, ours: fn(&Socket) -> bool) -> Option<Claim> {
    let socket = seen.socket.as_ref()?;
    let inet = matches!(socket.domain, AF_INET | AF_INET6) && ours(socket);
    inet.then(|| Claim::whole(Identity::Inode(seen.inode)))
}

impl State {
    fn of(fd: BorrowedFd<'_>) -> Result<Self> {
        let number = |name| net::get_int(fd, SOL_SOCKET, name).map_err(kernel("getsockopt"));
        let local = bound(net::name(fd).map_err(kernel("getsockname"))?);
        Ok(Self {
            family: number(libc::SO_DOMAIN)?,
            r#type: number(libc::SO_TYPE)?,
            proto: number(libc::SO_PROTOCOL)?,
            foreign: is_foreign(&local),
            local,
            opts: options::collect(fd)?,
            ..Self::default()
        })
    }

    /// Whether its name can be had: by having it for a moment.
    fn check(&self, taken: &Cause) -> Vec<Missing> {
        let bound = !self.local.is_empty() && self.past == i32::from(Past::Fresh);
        let alone = Self { peer: Vec::new(), ..self.clone() };
        match bound.then(|| alone.fresh()) {
            Some(Err(Error::Kernel(
                "bind" | "listen",
                Errno::EADDRINUSE | Errno::EADDRNOTAVAIL | Errno::ENODEV,
            ))) => {
                let address = parse(&self.local).map(|at| at.to_string()).unwrap_or_default();
                vec![Missing { object: format!("socket bound to {address}"), cause: *taken }]
            }
            _ => Vec::new(),
        }
    }

    fn build(&self) -> Result<Ends> {
        let (made, when) = match Past::try_from(self.past) {
            Ok(Past::Fresh) | Err(_) => (self.fresh()?, When::Last),
            Ok(past) => {
                let made = reset::build(self.family, &self.local)?;
                if past == Past::Over {
                    net::get_int(made.as_fd(), SOL_SOCKET, libc::SO_ERROR)
                        .map_err(kernel("getsockopt"))?;
                }
                (made, When::AfterAll)
            }
        };
        options::restore(made.as_fd(), &self.opts, when)?;
        Ok(Ends::one(made))
    }

    fn read_datagrams(&mut self, fd: BorrowedFd<'_>, with: &mut Collect<'_>) -> Result<()> {
        self.peer = bound(net::peer_name(fd).unwrap_or_default());
        let shut = shutdown::of(fd, self.family, self.proto)?;
        self.shut = shut.into();
        let waiting = match net::count(fd, FIONREAD) {
            Err(Errno::ENOTTY) => 0, // Ping sockets do not count.
            waiting => waiting.map_err(kernel("ioctl"))?,
        };
        let readable = poll_now(fd, POLLIN).map_err(kernel("poll"))?;
        if waiting > 0 || readable && shut & shutdown::READING == 0 {
            with.obstacle(&QUEUED);
        }
        let (memberships, exact) = multicast::collect(fd, self.family)?;
        self.memberships = memberships;
        if !exact {
            with.obstacle(&SOURCES);
        }
        Ok(())
    }

    /// `struct tcp_info` of a listening socket: its backlog, and how many wait.
    fn read_door(&mut self, fd: BorrowedFd<'_>, with: &mut Collect<'_>) -> Result<()> {
        const UNACKED: usize = 24;
        const SACKED: usize = 28;
        let info = net::get(fd, IPPROTO_TCP, libc::TCP_INFO, SACKED + 4);
        let info = info.map_err(kernel("getsockopt"))?;
        let word = |at| {
            let bytes = info.get(at..).and_then(<[u8]>::first_chunk);
            bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
        };
        self.backlog = Some(word(SACKED));
        if (word(UNACKED) > 0 || poll_now(fd, POLLIN).map_err(kernel("poll"))?) && !with.close_tcp {
            with.obstacle(&PENDING);
        }
        Ok(())
    }

    fn read_stream(&mut self, fd: BorrowedFd<'_>, with: &mut Collect<'_>) -> Result<()> {
        const CLOSE: u8 = 7; // `TCP_CLOSE` of `include/net/tcp_states.h`
        let info = net::get(fd, IPPROTO_TCP, libc::TCP_INFO, 1).map_err(kernel("getsockopt"))?;
        if info.first() != Some(&CLOSE) {
            if !with.close_tcp {
                with.obstacles.push(self.established(fd, with));
            }
            self.past = Past::Reset.into();
        } else if poll_now(fd, POLLERR).map_err(kernel("poll"))? {
            self.past = Past::Reset.into();
        } else {
            let seen = nix::sys::socket::recv(
                std::os::fd::AsRawFd::as_raw_fd(&fd),
                &mut [0],
                nix::sys::socket::MsgFlags::MSG_PEEK | nix::sys::socket::MsgFlags::MSG_DONTWAIT,
            );
            let past = if seen == Err(Errno::ENOTCONN) { Past::Fresh } else { Past::Over };
            self.past = past.into();
        }
        Ok(())
    }

    fn established(&self, fd: BorrowedFd<'_>, with: &Collect<'_>) -> Obstacle {
        let peer = net::peer_name(fd).ok().and_then(|peer| parse(&peer));
        let name =
            |address: Option<SocketAddr>| address.map_or("?".into(), |address| address.to_string());
        let ends = format!("{} -> {}", name(parse(&self.local)), name(peer));
        let object = format!("{} {ends}", with.name);
        Obstacle { pid: Some(with.holder), object, cause: ESTABLISHED }
    }

    /// Several may be bound to one port, each of which once allowed that, at least for a while.
    fn fresh(&self) -> Result<OwnedFd> {
        let made = create(self.family, self.r#type, self.proto)?;
        let fd = made.as_fd();
        options::restore(fd, &self.opts, When::BeforeBind)?;
        if !self.local.is_empty() && self.r#type != libc::SOCK_RAW || self.has_address() {
            let one = 1i32.to_ne_bytes();
            net::set(fd, SOL_SOCKET, SO_REUSEADDR, &one).map_err(kernel("setsockopt"))?;
            if self.foreign {
                let six = self.family == AF_INET6;
                let (level, name) =
                    if six { (IPPROTO_IPV6, IPV6_FREEBIND) } else { (IPPROTO_IP, IP_FREEBIND) };
                net::set(fd, level, name, &one).map_err(kernel("setsockopt"))?;
            }
            net::bind(fd, &self.local).map_err(kernel("bind"))?;
        }
        for membership in &self.memberships {
            membership.join(fd)?;
        }
        if !self.peer.is_empty() {
            net::connect(fd, &self.peer).map_err(kernel("connect"))?;
        }
        if let Some(backlog) = self.backlog {
            options::restore(fd, &self.opts, When::BeforeBind)?;
            let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
            net::listen(fd, backlog).map_err(kernel("listen"))?;
        }
        if let Ok(how @ 1..=3) = i32::try_from(self.shut) {
            match net::shutdown(fd, how - 1) {
                Ok(()) | Err(Errno::ENOTCONN) => {} // It is shut all the same.
                Err(errno) => return Err(Error::Kernel("shutdown", errno)),
            }
        }
        Ok(made)
    }

    /// A raw socket's port is its protocol.
    fn has_address(&self) -> bool {
        parse(&self.local).is_some_and(|local| !local.ip().is_unspecified())
    }
}

/// Whether the host does not have this address.
fn is_foreign(address: &[u8]) -> bool {
    let Some(mut at) = parse(address).filter(|at| !at.ip().is_unspecified()) else { return false };
    at.set_port(0);
    let taken = std::net::UdpSocket::bind(at);
    // An address of one link only is another matter.
    let of_link = matches!(at, SocketAddr::V6(at) if at.ip().is_unicast_link_local());
    let group = at.ip().is_multicast();
    !of_link && !group && taken.is_err_and(|e| e.kind() == std::io::ErrorKind::AddrNotAvailable)
}

/// Nothing, for a socket that has neither address nor port.
fn bound(address: Vec<u8>) -> Vec<u8> {
    let given = parse(&address).is_some_and(|at| !at.ip().is_unspecified() || at.port() != 0);
    if given { address } else { Vec::new() }
}

impl State {
    fn view(&self) -> View {
        let shown = |address: &[u8]| parse(address).map(|at| at.to_string()).unwrap_or_default();
        let socket = SocketView {
            family: if self.family == AF_INET6 { "inet6" } else { "inet" },
            sort: sort(self.r#type),
            local: shown(&self.local),
            peer: shown(&self.peer),
            state: match self.backlog {
                Some(_) => "listening",
                None if !self.peer.is_empty() => "connected",
                None => "unconnected",
            },
        };
        View { socket: Some(socket), ..View::default() }
    }
}

/// `struct sockaddr_in` or `sockaddr_in6`.
fn parse(address: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = address.split_first_chunk::<2>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    match i32::from(u16::from_ne_bytes(*family)) {
        AF_INET => Some((Ipv4Addr::from(*rest.first_chunk::<4>()?), port).into()),
        AF_INET6 => Some((Ipv6Addr::from(*rest.get(4..)?.first_chunk::<16>()?), port).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
