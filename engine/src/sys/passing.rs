//! Descriptors that come from elsewhere: in messages, or inherited at the start. For the supervisor.
//!
//! Kernel: `net/core/scm.c`; unix(7), `SCM_RIGHTS`.
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Mutex;

use nix::Result;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// More than any of our messages carries. The kernel's limit is `SCM_MAX_FD` of `include/net/scm.h`, 253.
const MAX_PASSED: usize = 160;

/// Reads some bytes and the descriptors that came with them; zero bytes are the end.
pub fn receive(socket: BorrowedFd<'_>, room: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    let mut control = nix::cmsg_space!([RawFd; MAX_PASSED]);
    let mut parts = [IoSliceMut::new(room)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let mut passed = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            // SAFETY: the kernel has just made these for us, and nix does not own them.
            passed.extend(fds.iter().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) }));
        }
    }
    Ok((message.bytes, passed))
}

/// Sends some of `bytes`, and with the first of them all of `passed`; says how many went.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], passed: &[BorrowedFd<'_>]) -> Result<usize> {
    let passed: Vec<_> = passed.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&passed)];
    let rights = if passed.is_empty() { &[][..] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], rights, flags, None)
}

/// Numbers that [`inherited`] has given away.
static TAKEN: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

/// Takes over a descriptor that this process was started with; each only once. For the first lines
/// of `main`, before anything else could have been opened under that number.
pub fn inherited(number: RawFd) -> Result<OwnedFd> {
    let mut taken = TAKEN.lock().map_err(|_| Errno::EBUSY)?;
    if taken.contains(&number) {
        return Err(Errno::EBADF);
    }
    // SAFETY: borrowed only for the length of the call, which fails if it is not open.
    let seen = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(seen, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    taken.push(number);
    // SAFETY: it is open, and handed out once only; that nobody in this process opened it is the
    // caller's promise to keep, and the reason for calling this first.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_descriptor_arrives_with_the_first_byte() {
        let (here, there) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        assert_eq!(send(here.as_fd(), b"hello", &[file.as_fd()]), Ok(5));
        let mut room = [0; 2];
        let (len, passed) = receive(there.as_fd(), &mut room).unwrap();
        assert_eq!((len, passed.len()), (2, 1));
        let (seen, sent) = (nix::sys::stat::fstat(&passed[0]), nix::sys::stat::fstat(&file));
        assert_eq!(seen.unwrap().st_ino, sent.unwrap().st_ino);
        let (len, passed) = receive(there.as_fd(), &mut [0; 9]).unwrap();
        assert_eq!((len, passed.len()), (3, 0));
    }
}
