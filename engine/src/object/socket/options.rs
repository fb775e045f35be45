//! The options of a socket: one ordered table, swept with getsockopt(2) and set again.
//!
//! Order matters where one option changes another; see the table. An option that a new socket has by
//! itself is not set, so that defaults take no privilege and options of other families do no harm.
//! Kernel: `net/core/sock.c`, `net/ipv4/{ip_sockglue,tcp}.c`, `net/ipv6/ipv6_sockglue.c`.
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::libc::{
    self, IPPROTO_ICMPV6, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, IPPROTO_UDP, SOL_SOCKET,
};

use crate::error::{Error, Result, kernel};
use crate::sys::net;

/// One option's value.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Value {
    #[prost(int32, tag = "1")]
    level: i32,
    #[prost(int32, tag = "2")]
    name: i32,
    #[prost(bytes = "vec", tag = "3")]
    bytes: Vec<u8>,
}

/// How an option is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// With the bytes that were read.
    Same,
    /// As half of the number, by another name, which knows no upper limit (`SO_SNDBUFFORCE`): the
    /// kernel doubles what it is told, and says what it made of it.
    Half(i32),
    /// As classic BPF code.
    Filter,
    /// Only off is worth setting again: on is what it becomes at every `FASTOPEN` or so.
    Positive,
}

/// One line of the table.
struct Known(&'static str, i32, i32, usize, How);

// Constants that libc lacks: `include/uapi/asm-generic/socket.h`.
const SO_RESERVE_MEM: i32 = 73;
const SO_TXREHASH: i32 = 74;
const SO_PASSPIDFD: i32 = 76;
const SO_PASSRIGHTS: i32 = 83;
// `include/uapi/linux/{in,in6,tcp,udp}.h`.
const IP_LOCAL_PORT_RANGE: i32 = 51;
const IP_CHECKSUM: i32 = 23;
const IPV6_AUTOFLOWLABEL: i32 = 70;
const IPV6_RECVFRAGSIZE: i32 = 77;
const IPV6_RECVERR_RFC4884: i32 = 31;
const IP_RECVERR_RFC4884: i32 = 26;
const IPV6_MULTICAST_ALL: i32 = 29;
const IPV6_MINHOPCOUNT: i32 = 73;
const TCP_TX_DELAY: i32 = 37;
const UDP_NO_CHECK6_TX: i32 = 101;
const UDP_NO_CHECK6_RX: i32 = 102;
const UDP_ENCAP: i32 = 100;
const UDP_SEGMENT: i32 = 103;
const UDP_GRO: i32 = 104;

// `include/uapi/linux/{icmp,in6,icmpv6}.h`, and `SOL_RAW` of `include/linux/socket.h`.
const SOL_RAW: i32 = 255;
const ICMP_FILTER: i32 = 1;
const IPV6_CHECKSUM: i32 = 7;
const ICMPV6_FILTER: i32 = 1;

use How::{Filter, Half, Positive, Same};
const INT: usize = 4;
const PAIR: usize = 16;

/// Every option that has a state of its own and can be read.
#[rustfmt::skip]
const TABLE: &[Known] = &[
    Known("SO_SNDBUF", SOL_SOCKET, libc::SO_SNDBUF, INT, Half(libc::SO_SNDBUFFORCE)),
    Known("SO_RCVBUF", SOL_SOCKET, libc::SO_RCVBUF, INT, Half(libc::SO_RCVBUFFORCE)),
    Known("SO_DEBUG", SOL_SOCKET, libc::SO_DEBUG, INT, Same),
    Known("SO_REUSEADDR", SOL_SOCKET, libc::SO_REUSEADDR, INT, Same),
    Known("SO_REUSEPORT", SOL_SOCKET, libc::SO_REUSEPORT, INT, Same),
    Known("SO_DONTROUTE", SOL_SOCKET, libc::SO_DONTROUTE, INT, Same),
    Known("SO_BROADCAST", SOL_SOCKET, libc::SO_BROADCAST, INT, Same),
    Known("SO_KEEPALIVE", SOL_SOCKET, libc::SO_KEEPALIVE, INT, Same),
    Known("SO_OOBINLINE", SOL_SOCKET, libc::SO_OOBINLINE, INT, Same),
    Known("SO_NO_CHECK", SOL_SOCKET, libc::SO_NO_CHECK, INT, Same),
    Known("SO_LINGER", SOL_SOCKET, libc::SO_LINGER, 8, Same),
    Known("SO_PASSCRED", SOL_SOCKET, libc::SO_PASSCRED, INT, Same),
    Known("SO_PASSSEC", SOL_SOCKET, libc::SO_PASSSEC, INT, Same),
    Known("SO_PASSPIDFD", SOL_SOCKET, SO_PASSPIDFD, INT, Same),
    Known("SO_PASSRIGHTS", SOL_SOCKET, SO_PASSRIGHTS, INT, Same),
    Known("SO_RCVLOWAT", SOL_SOCKET, libc::SO_RCVLOWAT, INT, Same),
    Known("SO_RCVTIMEO", SOL_SOCKET, libc::SO_RCVTIMEO, PAIR, Same),
    Known("SO_SNDTIMEO", SOL_SOCKET, libc::SO_SNDTIMEO, PAIR, Same),
    Known("SO_TIMESTAMP_OLD", SOL_SOCKET, libc::SO_TIMESTAMP, INT, Same),
    Known("SO_TIMESTAMPNS_OLD", SOL_SOCKET, libc::SO_TIMESTAMPNS, INT, Same),
    Known("SO_TIMESTAMP_NEW", SOL_SOCKET, 63, INT, Same),
    Known("SO_TIMESTAMPNS_NEW", SOL_SOCKET, 64, INT, Same),
    Known("SO_TIMESTAMPING", SOL_SOCKET, libc::SO_TIMESTAMPING, 8, Same),
    Known("SO_MARK", SOL_SOCKET, libc::SO_MARK, INT, Same),
    Known("SO_RXQ_OVFL", SOL_SOCKET, libc::SO_RXQ_OVFL, INT, Same),
    Known("SO_WIFI_STATUS", SOL_SOCKET, 41, INT, Same),
    Known("SO_PEEK_OFF", SOL_SOCKET, libc::SO_PEEK_OFF, INT, Same),
    Known("SO_NOFCS", SOL_SOCKET, 43, INT, Same),
    Known("SO_SELECT_ERR_QUEUE", SOL_SOCKET, 45, INT, Same),
    Known("SO_BUSY_POLL", SOL_SOCKET, libc::SO_BUSY_POLL, INT, Same),
    Known("SO_PREFER_BUSY_POLL", SOL_SOCKET, 69, INT, Same),
    Known("SO_MAX_PACING_RATE", SOL_SOCKET, 47, 8, Same),
    Known("SO_INCOMING_CPU", SOL_SOCKET, libc::SO_INCOMING_CPU, INT, Positive),
    Known("SO_ZEROCOPY", SOL_SOCKET, libc::SO_ZEROCOPY, INT, Same),
    Known("SO_TXTIME", SOL_SOCKET, libc::SO_TXTIME, 8, Same),
    Known("SO_RESERVE_MEM", SOL_SOCKET, SO_RESERVE_MEM, INT, Same),
    Known("SO_TXREHASH", SOL_SOCKET, SO_TXREHASH, INT, Same),
    Known("SO_BUF_LOCK", SOL_SOCKET, 72, INT, Same),
    Known("SO_BINDTODEVICE", SOL_SOCKET, libc::SO_BINDTODEVICE, 16, Same),
    Known("SO_ATTACH_FILTER", SOL_SOCKET, libc::SO_ATTACH_FILTER, 0, Filter),
    Known("SO_LOCK_FILTER", SOL_SOCKET, 44, INT, Same),
    Known("IP_TOS", IPPROTO_IP, libc::IP_TOS, INT, Same),
    Known("IPV6_TCLASS", IPPROTO_IPV6, libc::IPV6_TCLASS, INT, Same),
    // The type of service sets a priority of its own.
    Known("SO_PRIORITY", SOL_SOCKET, libc::SO_PRIORITY, INT, Same),
    Known("IP_TTL", IPPROTO_IP, libc::IP_TTL, INT, Same),
    Known("IP_HDRINCL", IPPROTO_IP, libc::IP_HDRINCL, INT, Same),
    Known("IP_OPTIONS", IPPROTO_IP, libc::IP_OPTIONS, 40, Same),
    Known("IP_ROUTER_ALERT", IPPROTO_IP, libc::IP_ROUTER_ALERT, INT, Same),
    Known("IP_RECVOPTS", IPPROTO_IP, libc::IP_RECVOPTS, INT, Same),
    Known("IP_RETOPTS", IPPROTO_IP, libc::IP_RETOPTS, INT, Same),
    Known("IP_PKTINFO", IPPROTO_IP, libc::IP_PKTINFO, INT, Same),
    Known("IP_MTU_DISCOVER", IPPROTO_IP, libc::IP_MTU_DISCOVER, INT, Same),
    Known("IP_RECVERR", IPPROTO_IP, libc::IP_RECVERR, INT, Same),
    Known("IP_RECVERR_RFC4884", IPPROTO_IP, IP_RECVERR_RFC4884, INT, Same),
    Known("IP_RECVTTL", IPPROTO_IP, libc::IP_RECVTTL, INT, Same),
    Known("IP_RECVTOS", IPPROTO_IP, libc::IP_RECVTOS, INT, Same),
    Known("IP_FREEBIND", IPPROTO_IP, libc::IP_FREEBIND, INT, Same),
    Known("IP_PASSSEC", IPPROTO_IP, 18, INT, Same),
    Known("IP_TRANSPARENT", IPPROTO_IP, libc::IP_TRANSPARENT, INT, Same),
    Known("IP_RECVORIGDSTADDR", IPPROTO_IP, libc::IP_ORIGDSTADDR, INT, Same),
    Known("IP_MINTTL", IPPROTO_IP, libc::IP_MINTTL, INT, Same),
    Known("IP_NODEFRAG", IPPROTO_IP, 22, INT, Same),
    Known("IP_CHECKSUM", IPPROTO_IP, IP_CHECKSUM, INT, Same),
    Known("IP_BIND_ADDRESS_NO_PORT", IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, INT, Same),
    Known("IP_RECVFRAGSIZE", IPPROTO_IP, 25, INT, Same),
    Known("IP_LOCAL_PORT_RANGE", IPPROTO_IP, IP_LOCAL_PORT_RANGE, INT, Same),
    Known("IP_MULTICAST_TTL", IPPROTO_IP, libc::IP_MULTICAST_TTL, INT, Same),
    Known("IP_MULTICAST_IF", IPPROTO_IP, libc::IP_MULTICAST_IF, INT, Same),
    Known("IP_MULTICAST_LOOP", IPPROTO_IP, libc::IP_MULTICAST_LOOP, INT, Same),
    Known("IP_MULTICAST_ALL", IPPROTO_IP, libc::IP_MULTICAST_ALL, INT, Same),
    Known("IP_UNICAST_IF", IPPROTO_IP, 50, INT, Same),
    Known("ICMP_FILTER", SOL_RAW, ICMP_FILTER, INT, Same),
    Known("IPV6_CHECKSUM", SOL_RAW, IPV6_CHECKSUM, INT, Same),
    Known("ICMPV6_FILTER", IPPROTO_ICMPV6, ICMPV6_FILTER, 32, Same),
    Known("IPV6_V6ONLY", IPPROTO_IPV6, libc::IPV6_V6ONLY, INT, Same),
    Known("IPV6_UNICAST_HOPS", IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, INT, Same),
    Known("IPV6_MULTICAST_IF", IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, INT, Same),
    Known("IPV6_MULTICAST_HOPS", IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, INT, Same),
    Known("IPV6_MULTICAST_LOOP", IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, INT, Same),
    Known("IPV6_MULTICAST_ALL", IPPROTO_IPV6, IPV6_MULTICAST_ALL, INT, Same),
    Known("IPV6_UNICAST_IF", IPPROTO_IPV6, 76, INT, Same),
    Known("IPV6_MTU_DISCOVER", IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, INT, Same),
    Known("IPV6_RECVERR", IPPROTO_IPV6, libc::IPV6_RECVERR, INT, Same),
    Known("IPV6_RECVERR_RFC4884", IPPROTO_IPV6, IPV6_RECVERR_RFC4884, INT, Same),
    Known("IPV6_RECVPKTINFO", IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, INT, Same),
    Known("IPV6_RECVHOPLIMIT", IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, INT, Same),
    Known("IPV6_RECVRTHDR", IPPROTO_IPV6, libc::IPV6_RECVRTHDR, INT, Same),
    Known("IPV6_RECVHOPOPTS", IPPROTO_IPV6, libc::IPV6_RECVHOPOPTS, INT, Same),
    Known("IPV6_RECVDSTOPTS", IPPROTO_IPV6, libc::IPV6_RECVDSTOPTS, INT, Same),
    Known("IPV6_RECVPATHMTU", IPPROTO_IPV6, libc::IPV6_RECVPATHMTU, INT, Same),
    Known("IPV6_RECVTCLASS", IPPROTO_IPV6, libc::IPV6_RECVTCLASS, INT, Same),
    Known("IPV6_RECVORIGDSTADDR", IPPROTO_IPV6, 74, INT, Same),
    Known("IPV6_RECVFRAGSIZE", IPPROTO_IPV6, IPV6_RECVFRAGSIZE, INT, Same),
    Known("IPV6_FLOWINFO", IPPROTO_IPV6, 11, INT, Same),
    Known("IPV6_FLOWINFO_SEND", IPPROTO_IPV6, 33, INT, Same),
    Known("IPV6_AUTOFLOWLABEL", IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, INT, Same),
    Known("IPV6_DONTFRAG", IPPROTO_IPV6, libc::IPV6_DONTFRAG, INT, Same),
    Known("IPV6_FREEBIND", IPPROTO_IPV6, 78, INT, Same),
    Known("IPV6_TRANSPARENT", IPPROTO_IPV6, 75, INT, Same),
    Known("IPV6_MINHOPCOUNT", IPPROTO_IPV6, IPV6_MINHOPCOUNT, INT, Same),
    Known("IPV6_ADDR_PREFERENCES", IPPROTO_IPV6, 72, INT, Same),
    Known("TCP_NODELAY", IPPROTO_TCP, libc::TCP_NODELAY, INT, Same),
    Known("TCP_CORK", IPPROTO_TCP, libc::TCP_CORK, INT, Same),
    Known("TCP_KEEPIDLE", IPPROTO_TCP, libc::TCP_KEEPIDLE, INT, Same),
    Known("TCP_KEEPINTVL", IPPROTO_TCP, libc::TCP_KEEPINTVL, INT, Same),
    Known("TCP_KEEPCNT", IPPROTO_TCP, libc::TCP_KEEPCNT, INT, Same),
    Known("TCP_SYNCNT", IPPROTO_TCP, libc::TCP_SYNCNT, INT, Same),
    Known("TCP_LINGER2", IPPROTO_TCP, libc::TCP_LINGER2, INT, Same),
    Known("TCP_DEFER_ACCEPT", IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, INT, Same),
    Known("TCP_WINDOW_CLAMP", IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, INT, Same),
    Known("TCP_CONGESTION", IPPROTO_TCP, libc::TCP_CONGESTION, 16, Same),
    Known("TCP_THIN_LINEAR_TIMEOUTS", IPPROTO_TCP, libc::TCP_THIN_LINEAR_TIMEOUTS, INT, Same),
    Known("TCP_USER_TIMEOUT", IPPROTO_TCP, libc::TCP_USER_TIMEOUT, INT, Same),
    Known("TCP_FASTOPEN", IPPROTO_TCP, libc::TCP_FASTOPEN, INT, Positive),
    Known("TCP_FASTOPEN_CONNECT", IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, INT, Same),
    Known("TCP_FASTOPEN_NO_COOKIE", IPPROTO_TCP, 34, INT, Same),
    Known("TCP_NOTSENT_LOWAT", IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, INT, Same),
    Known("TCP_SAVE_SYN", IPPROTO_TCP, libc::TCP_SAVE_SYN, INT, Same),
    Known("TCP_INQ", IPPROTO_TCP, libc::TCP_INQ, INT, Same),
    Known("TCP_TX_DELAY", IPPROTO_TCP, TCP_TX_DELAY, INT, Same),
    Known("TCP_MAXSEG", IPPROTO_TCP, libc::TCP_MAXSEG, INT, Positive),
    Known("UDP_CORK", IPPROTO_UDP, libc::UDP_CORK, INT, Same),
    Known("UDP_ENCAP", IPPROTO_UDP, UDP_ENCAP, INT, Same),
    Known("UDP_NO_CHECK6_TX", IPPROTO_UDP, UDP_NO_CHECK6_TX, INT, Same),
    Known("UDP_NO_CHECK6_RX", IPPROTO_UDP, UDP_NO_CHECK6_RX, INT, Same),
    Known("UDP_SEGMENT", IPPROTO_UDP, UDP_SEGMENT, INT, Same),
    Known("UDP_GRO", IPPROTO_UDP, UDP_GRO, INT, Same),
];

/// Reads every option that the socket has.
pub(crate) fn collect(fd: BorrowedFd<'_>) -> Result<Vec<Value>> {
    let mut values = Vec::new();
    for known in TABLE {
        if let Some(bytes) = read(fd, known)? {
            values.push(Value { level: known.1, name: known.2, bytes });
        }
    }
    Ok(values)
}

/// `None` where the socket is of another sort, or the kernel of another time.
fn read(fd: BorrowedFd<'_>, known: &Known) -> Result<Option<Vec<u8>>> {
    let Known(_, level, name, len, how) = known;
    let value = match how {
        Filter => net::get_filter(fd),
        _ => net::get(fd, *level, *name, *len),
    };
    match value {
        Ok(value) => Ok(Some(value)),
        Err(Errno::EACCES | Errno::EPERM) if *how == Filter => Ok(None),
        Err(Errno::ENOPROTOOPT | Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOTCONN) => Ok(None),
        Err(errno) => Err(Error::Kernel("getsockopt", errno)),
    }
}

/// Which of them are to be set: one of a socket's lives has other needs than the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// What bind(2) goes by.
    BeforeBind,
    /// All: sizes of buffers, `TCP_DEFER_ACCEPT`, filters that would eat what is being queued.
    Last,
    /// What a socket that was connected still takes.
    AfterAll,
}

/// Options that decide what can be bound, and to what.
const FOR_BINDING: &[(i32, i32)] = &[
    (SOL_SOCKET, libc::SO_REUSEADDR),
    (SOL_SOCKET, libc::SO_REUSEPORT),
    (SOL_SOCKET, libc::SO_BROADCAST),
    (SOL_SOCKET, libc::SO_BINDTODEVICE),
    (SOL_SOCKET, libc::SO_MARK),
    (IPPROTO_IP, libc::IP_FREEBIND),
    (IPPROTO_IP, libc::IP_TRANSPARENT),
    (IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT),
    (IPPROTO_IPV6, libc::IPV6_V6ONLY),
];

/// Sets what differs from what the socket has already.
pub(crate) fn restore(fd: BorrowedFd<'_>, values: &[Value], when: When) -> Result<()> {
    for value in values {
        let known = TABLE.iter().find(|known| (known.1, known.2) == (value.level, value.name));
        let known = known.ok_or_else(|| unknown(value))?;
        let early = FOR_BINDING.contains(&(value.level, value.name));
        if (!early && when == When::BeforeBind) || read(fd, known)?.as_ref() == Some(&value.bytes) {
            continue;
        }
        match set(fd, known, &value.bytes) {
            Err(_) if when == When::AfterAll => {}
            done => done?,
        }
    }
    Ok(())
}

fn unknown(value: &Value) -> Error {
    Error::Record(format!("socket option {}/{}", value.level, value.name), None)
}

fn set(fd: BorrowedFd<'_>, Known(option, level, name, _, how): &Known, value: &[u8]) -> Result<()> {
    let number = || value.first_chunk().map_or(0, |int| i32::from_ne_bytes(*int));
    let done = match how {
        Same => net::set(fd, *level, *name, value),
        Half(force) => net::set(fd, *level, *force, &(number() / 2).to_ne_bytes()),
        Filter => net::attach_filter(fd, value),
        Positive if number() > 0 => net::set(fd, *level, *name, value),
        Positive => Ok(()),
    };
    done.map_err(kernel(option))
}

#[cfg(test)]
mod tests;
