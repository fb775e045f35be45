//! Which directions of a datagram socket are shut. Of both, or of reading alone, poll(2) shows signs;
//! that one does not write any more only `sock_diag(7)` tells, and only of sockets with a port.
//!
//! Kernel: `net/ipv4/{inet_diag,udp_diag}.c`, `include/uapi/linux/inet_diag.h`.
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::libc::{IPPROTO_UDP, IPPROTO_UDPLITE, POLLHUP, POLLRDHUP};
use nix::sys::stat::fstat;

use super::super::socket::diag;
use crate::error::{Error, Result, kernel};
use crate::sys::poll_now;

/// `RCV_SHUTDOWN` and `SEND_SHUTDOWN` of `include/net/sock.h`.
pub(super) const READING: u8 = 1;
pub(super) const WRITING: u8 = 2;
/// Bytes of `struct inet_diag_req_v2` and of `struct inet_diag_msg`; where the latter has the inode.
const REQUEST: usize = 56;
const MESSAGE: usize = 72;
const INODE: usize = 68;
/// `INET_DIAG_SHUTDOWN`.
const SHUTDOWN: u16 = 8;

/// `READING` and `WRITING`, as far as they are shut.
pub(super) fn of(fd: BorrowedFd<'_>, family: i32, protocol: i32) -> Result<u8> {
    let sign = |sign| poll_now(fd, sign).map_err(kernel("poll"));
    if sign(POLLHUP)? {
        return Ok(READING | WRITING);
    }
    if sign(POLLRDHUP)? {
        return Ok(READING);
    }
    if !matches!(protocol, IPPROTO_UDP | IPPROTO_UDPLITE) {
        return Ok(0);
    }
    let inode = fstat(fd).map_err(kernel("fstat"))?.st_ino;
    match told(inode, &request(family, protocol)) {
        // A kernel that was built without it.
        Err(Error::Kernel(_, Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT)) => Ok(0),
        told => told,
    }
}

fn request(family: i32, protocol: i32) -> Vec<u8> {
    let byte = |number: i32| u8::try_from(number).unwrap_or_default();
    let mut bytes = vec![byte(family), byte(protocol), 0, 0];
    bytes.extend(u32::MAX.to_ne_bytes()); // In any state.
    bytes.resize(REQUEST, 0);
    bytes
}

fn told(inode: u64, request: &[u8]) -> Result<u8> {
    let mut found = 0;
    diag::dump(request, &mut |body| {
        if u64::from(diag::word(body, INODE)?) == inode {
            let attributes = diag::attributes(body.get(MESSAGE..)?)?;
            let shut = attributes.iter().find(|(attribute, _)| *attribute == SHUTDOWN);
            found = shut.and_then(|(_, value)| value.first()).copied().unwrap_or(0);
        }
        Some(())
    })?;
    Ok(found)
}
