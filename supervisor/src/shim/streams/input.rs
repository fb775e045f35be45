//! Input that is a pipe: from the keeper's original into the spool, from there into the workload's.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use engine::spawn::waiting;
use nix::errno::Errno;
use nix::libc::{EAGAIN, EINTR};
use nix::poll::PollFlags;
use nix::unistd::write;

use super::WINDOW;
use crate::spool::Spool;

pub(super) struct Input {
    /// `None` once it has ended, or nobody wants it any more.
    origin: Option<OwnedFd>,
    /// Our end of the workload's pipe.
    feed: Option<OwnedFd>,
    spool: Spool,
    fed: u64,
    /// There is, or will be, a snapshot from which on it is given again.
    keeps: bool,
}

/// How much is given before it is let go of, where it need not be kept.
const LET_GO: u64 = 1 << 20;

impl Input {
    pub(super) fn new(
        origin: OwnedFd,
        feed: OwnedFd,
        spool: Spool,
        (fed, keeps): (u64, bool),
    ) -> Self {
        let origin = (!spool.ended()).then_some(origin);
        Self { origin, feed: Some(feed), spool, fed, keeps }
    }

    /// Reading ahead is bounded, so that a fast generator waits as it would for the workload.
    pub(super) fn polled_origin(&self) -> Option<BorrowedFd<'_>> {
        let ahead = self.spool.end().saturating_sub(self.fed);
        self.origin.as_ref().filter(|_| ahead < WINDOW as u64).map(AsFd::as_fd)
    }

    pub(super) fn polled_feed(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let some = self.fed < self.spool.end() || self.spool.ended();
        let wanted = if some { PollFlags::POLLOUT } else { PollFlags::empty() };
        self.feed.as_ref().map(|fd| (fd.as_fd(), wanted))
    }

    pub(super) fn external(&self) -> Option<BorrowedFd<'_>> {
        self.feed.as_ref().map(AsFd::as_fd)
    }

    /// Called only when there is something: the original may be a blocking one.
    pub(super) fn take(&mut self) {
        let Some(origin) = &self.origin else { return };
        match self.spool.take(origin.as_fd(), WINDOW / 2) {
            Ok(1..) => {}
            Err(error) if [EAGAIN, EINTR].contains(&error.raw_os_error().unwrap_or(0)) => {}
            Ok(_) => {
                self.origin = None;
                let _ = self.spool.finish();
            }
            // Not the end: what cannot be kept must not be lost either.
            Err(_) => self.origin = None,
        }
    }

    pub(super) fn feed(&mut self, seen: PollFlags) {
        let Some(feed) = &self.feed else { return };
        let mut room = [0; 4096];
        let given = match self.spool.read(self.fed, &mut room) {
            _ if seen.contains(PollFlags::POLLERR) => Err(Errno::EPIPE),
            Ok(0) if self.spool.ended() => Err(Errno::EPIPE),
            Ok(0) | Err(_) => return,
            Ok(len) => write(feed, room.get(..len).unwrap_or_default()),
        };
        match given {
            Ok(len) => {
                let before = self.fed / LET_GO;
                self.fed += len as u64;
                if !self.keeps && self.fed / LET_GO > before {
                    // What lies in the pipe may still have to be given again.
                    self.trim(self.fed.saturating_sub(LET_GO));
                }
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // Given in full, or nobody reads any more: who generates it should know.
            Err(_) => (self.feed, self.origin) = (None, None),
        }
    }

    /// Where to go on after a restore: what lies unread in the pipe is given again.
    pub(super) fn read_by_workload(&self) -> u64 {
        let unread = self.feed.as_ref().and_then(|fd| waiting(fd.as_fd()).ok());
        self.fed.saturating_sub(unread.unwrap_or(0))
    }

    pub(super) fn trim(&self, position: u64) {
        let _ = self.spool.trim(position);
    }

    /// A snapshot is being taken.
    pub(super) fn keep_from_now_on(&mut self) {
        self.keeps = true;
        let _ = self.spool.sync();
    }
}
