//! One end of a connection, for those who can wait: keeper's helpers, workers, commands.
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use engine::passing;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use prost::Message;

use super::frame::{Frames, encode};
use crate::error::{Error, Result};

/// A connection, and what has come by it.
#[derive(Debug)]
pub struct Channel {
    socket: UnixStream,
    peer: &'static str,
    frames: Frames,
    passed: VecDeque<OwnedFd>,
}

impl Channel {
    /// Speaks by `socket` with whom messages call `peer`.
    #[must_use]
    pub fn new(socket: UnixStream, peer: &'static str) -> Self {
        Self { socket, peer, frames: Frames::default(), passed: VecDeque::new() }
    }

    /// Sends a message and descriptors with it.
    pub fn send<M: Message>(&self, message: &M, passed: &[BorrowedFd<'_>]) -> Result<()> {
        let bytes = encode(message);
        let (mut rest, mut passed) = (bytes.as_slice(), passed);
        while !rest.is_empty() {
            match passing::send(self.socket.as_fd(), rest, passed) {
                Ok(done) => (rest, passed) = (rest.get(done..).unwrap_or_default(), &[]),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => self.wait(PollFlags::POLLOUT)?,
                Err(_) => return Err(Error::Lost(self.peer)),
            }
        }
        Ok(())
    }

    /// Waits for the next message; `None` at the end.
    pub fn receive<M: Message + Default>(&mut self) -> Result<Option<M>> {
        let mut room = [0; 16 << 10];
        loop {
            if let Some(message) = self.frames.next().map_err(|_| Error::Lost(self.peer))? {
                return Ok(Some(message));
            }
            match passing::receive(self.socket.as_fd(), &mut room) {
                Ok((0, _)) | Err(Errno::ECONNRESET) => return Ok(None),
                Ok((len, passed)) => {
                    self.frames.push(room.get(..len).unwrap_or_default());
                    self.passed.extend(passed);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => self.wait(PollFlags::POLLIN)?,
                Err(_) => return Err(Error::Lost(self.peer)),
            }
        }
    }

    /// Likewise, where the end means that the other side is gone.
    pub fn expect<M: Message + Default>(&mut self) -> Result<M> {
        self.receive()?.ok_or(Error::Lost(self.peer))
    }

    /// The next descriptor that came with a message.
    pub fn take_passed(&mut self) -> Option<OwnedFd> {
        self.passed.pop_front()
    }

    /// What has come and was not yet received, for other ways of receiving.
    pub fn take_frames(&mut self) -> Frames {
        std::mem::take(&mut self.frames)
    }

    /// The socket, for other ways of waiting.
    #[must_use]
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// The same for good. What came already is lost.
    #[must_use]
    pub fn into_socket(self) -> UnixStream {
        self.socket
    }

    fn wait(&self, what: PollFlags) -> Result<()> {
        let mut polled = [PollFd::new(self.socket.as_fd(), what)];
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(_) => Err(Error::Lost(self.peer)),
        }
    }
}
