//! Connections: keepers, commands, the worker.
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use engine::passing;
use nix::errno::Errno;
use nix::poll::PollFlags;

use crate::error::{Result, cannot};
use crate::wire::{Frames, FromShim, ToShim, encode, from_shim, to_shim};

pub(super) struct Client {
    socket: UnixStream,
    frames: Frames,
    pub(super) passed: VecDeque<OwnedFd>,
    out: VecDeque<u8>,
    /// Wants news.
    pub(super) attached: bool,
    /// And what is written to the terminal, of which it has yet to take so much.
    pub(super) terminal: bool,
    pub(super) untaken: usize,
    gone: bool,
}

impl Client {
    pub(super) fn new(socket: UnixStream) -> Result<Self> {
        socket.set_nonblocking(true).map_err(cannot("use a connection"))?;
        Ok(Self {
            socket,
            frames: Frames::default(),
            passed: VecDeque::new(),
            out: VecDeque::new(),
            attached: false,
            terminal: false,
            untaken: 0,
            gone: false,
        })
    }

    pub(super) fn polled(&self) -> (BorrowedFd<'_>, PollFlags) {
        let mut what = PollFlags::POLLIN;
        what.set(PollFlags::POLLOUT, !self.out.is_empty());
        (self.socket.as_fd(), what)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.gone || self.out.is_empty()
    }

    /// Reads what came: all whole messages.
    pub(super) fn receive(&mut self) -> Vec<to_shim::Of> {
        let mut room = [0; 16 << 10];
        match passing::receive(self.socket.as_fd(), &mut room) {
            Ok((len @ 1.., passed)) => {
                self.frames.push(room.get(..len).unwrap_or_default());
                self.passed.extend(passed);
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Ok(_) | Err(_) => self.gone = true,
        }
        let mut all = Vec::new();
        loop {
            match self.frames.next::<ToShim>() {
                Ok(Some(message)) => all.extend(message.of),
                Ok(None) => return all,
                Err(_) => {
                    self.gone = true;
                    return all;
                }
            }
        }
    }

    pub(super) fn send(&mut self, message: from_shim::Of) {
        self.out.extend(encode(&FromShim { of: Some(message) }));
        self.flush();
    }

    /// With descriptors: only as the first message of a connection.
    pub(super) fn send_first(&mut self, message: from_shim::Of, passed: &[BorrowedFd<'_>]) {
        let bytes = encode(&FromShim { of: Some(message) });
        match passing::send(self.socket.as_fd(), &bytes, passed) {
            Ok(done) => self.out.extend(bytes.get(done..).unwrap_or_default()),
            Err(_) => self.gone = true,
        }
    }

    pub(super) fn flush(&mut self) {
        while let (some @ [_, ..], _) = self.out.as_slices() {
            match passing::send(self.socket.as_fd(), some, &[]) {
                Ok(done) => drop(self.out.drain(..done)),
                Err(Errno::EAGAIN | Errno::EINTR) => return,
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
    }
}
