//! A stream that was reset: a connection to ourselves, made and broken.
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::libc::{AF_INET, AF_INET6, POLLHUP, SO_LINGER, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET};

use super::create;
use crate::error::{Error, Result, kernel};
use crate::sys::{net, poll_now};

/// Its own name is `local` if that can be had; reading gives `ECONNRESET` once, writing `EPIPE`.
pub(super) fn build(family: i32, local: &[u8]) -> Result<OwnedFd> {
    // Its name may not reach this host's own, or be taken: then it goes without.
    attempt(family, local).or_else(|_| attempt(family, &[]))
}

fn attempt(family: i32, local: &[u8]) -> Result<OwnedFd> {
    let door = create(AF_INET, SOCK_STREAM, 0)?;
    let anywhere = address(AF_INET, (Ipv4Addr::LOCALHOST, 0).into());
    net::bind(door.as_fd(), &anywhere).map_err(kernel("bind"))?;
    net::listen(door.as_fd(), 1).map_err(kernel("listen"))?;
    let at = net::name(door.as_fd()).map_err(kernel("getsockname"))?;
    let at = super::parse(&at).map_or(0, |at| at.port());
    let guest = create(family, SOCK_STREAM, 0)?;
    if !local.is_empty() {
        let one = 1i32.to_ne_bytes();
        net::set(guest.as_fd(), SOL_SOCKET, SO_REUSEADDR, &one).map_err(kernel("setsockopt"))?;
        net::bind(guest.as_fd(), local).map_err(kernel("bind"))?;
    }
    let to = address(family, (Ipv4Addr::LOCALHOST, at).into());
    match net::connect(guest.as_fd(), &to) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(errno) => return Err(Error::Kernel("connect", errno)),
    }
    let host = accepted(&door)?;
    let abort = [1i32, 0].map(i32::to_ne_bytes).concat();
    net::set(host.as_fd(), SOL_SOCKET, SO_LINGER, &abort).map_err(kernel("setsockopt"))?;
    drop(host);
    for _ in 0..1000 {
        if poll_now(guest.as_fd(), POLLHUP).map_err(kernel("poll"))? {
            break;
        }
        std::thread::sleep(std::time::Duration::from_micros(100));
    }
    Ok(guest)
}

/// A connection over the loopback device is there at once, or in a moment.
fn accepted(door: &OwnedFd) -> Result<OwnedFd> {
    let mut last = Errno::EAGAIN;
    for _ in 0..1000 {
        match net::accept(door.as_fd()) {
            Ok(host) => return Ok(host),
            Err(errno) => last = errno,
        }
        std::thread::sleep(std::time::Duration::from_micros(100));
    }
    Err(Error::Kernel("accept4", last))
}

/// As `struct sockaddr_in`, or mapped into `struct sockaddr_in6`.
fn address(family: i32, at: SocketAddr) -> Vec<u8> {
    let mut bytes = u16::try_from(family).unwrap_or_default().to_ne_bytes().to_vec();
    bytes.extend(at.port().to_be_bytes());
    match at {
        SocketAddr::V4(at) if family == AF_INET6 => {
            bytes.extend([0; 4]);
            bytes.extend(Ipv6Addr::octets(&at.ip().to_ipv6_mapped()));
            bytes.extend([0; 4]);
        }
        SocketAddr::V4(at) => {
            bytes.extend(at.ip().octets());
            bytes.extend([0; 8]);
        }
        SocketAddr::V6(_) => {}
    }
    bytes
}
