//! One output that is a pipe: the workload's pipe, the log, and where it is passed on to.
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::Mode;
use nix::unistd::{read, write};

use super::{Log, WINDOW};
use crate::log::Source;
use crate::shim::number;

/// A write of this length does not block when poll(2) has said that one is possible (pipe(7)).
const ATOMIC: usize = 4096;

pub(super) struct Output {
    key: String,
    source: Source,
    /// Our end of the workload's pipe, until it has ended.
    from: Option<OwnedFd>,
    through: Option<Through>,
    waiting: VecDeque<u8>,
}

impl Output {
    pub(super) fn new(n: usize, source: Source, from: OwnedFd, to: Option<OwnedFd>) -> Self {
        let (key, from) = (format!("stdio/{n}"), Some(from));
        Self { key, source, from, through: to.map(Through::new), waiting: VecDeque::new() }
    }

    pub(super) fn polled_source(&self) -> Option<BorrowedFd<'_>> {
        self.from.as_ref().filter(|_| self.waiting.len() < WINDOW).map(AsFd::as_fd)
    }

    /// Always polled, for its breaking.
    pub(super) fn polled_through(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let wanted = if self.waiting.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
        self.through.as_ref().map(|through| (through.fd.as_fd(), wanted))
    }

    pub(super) fn external(&self) -> Option<(String, BorrowedFd<'_>)> {
        self.from.as_ref().map(|fd| (self.key.clone(), fd.as_fd()))
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Reads what was written: some of it, or all that is there.
    pub(super) fn take(&mut self, log: &mut Log, all: bool) {
        let mut room = vec![0; WINDOW];
        while let Some(from) = &self.from {
            match read(from, &mut room) {
                Ok(len @ 1..) => {
                    let bytes = room.get(..len).unwrap_or_default();
                    log.append(self.source, bytes);
                    if self.through.is_some() {
                        self.waiting.extend(bytes);
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => return,
                Ok(_) | Err(_) => self.from = None,
            }
            if !all {
                return;
            }
        }
    }

    /// Passes on some of what waits. A reader that is gone is the workload's to find out.
    pub(super) fn pass_on(&mut self, seen: PollFlags) {
        let Some(through) = &self.through else { return };
        let broken = seen.intersects(PollFlags::POLLERR | PollFlags::POLLNVAL);
        let sent =
            if broken { Err(Errno::EPIPE) } else { through.send(self.waiting.as_slices().0) };
        match sent {
            Ok(len) => drop(self.waiting.drain(..len)),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => (self.through, self.from, self.waiting) = (None, None, VecDeque::new()),
        }
    }
}

/// The keeper's original, written without ever waiting, though its flags are shared with others.
struct Through {
    fd: OwnedFd,
    is_socket: bool,
}

impl Through {
    fn new(original: OwnedFd) -> Self {
        let path = format!("/proc/self/fd/{}", number(&original));
        let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        let is_socket =
            nix::sys::socket::getsockopt(&original, nix::sys::socket::sockopt::SockType).is_ok();
        // An open file of our own has flags of its own. A socket has none; where it fails, short
        // writes must do.
        let own = if is_socket { None } else { open(path.as_str(), flags, Mode::empty()).ok() };
        Self { fd: own.unwrap_or(original), is_socket }
    }

    fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let some = bytes.get(..ATOMIC.min(bytes.len())).unwrap_or_default();
        if some.is_empty() {
            return Ok(0);
        }
        if self.is_socket {
            return send(number(&self.fd), some, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
        }
        write(&self.fd, some)
    }
}
