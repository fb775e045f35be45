//! The keeper's own terminal: raw while the workload's is in charge of line editing and signals.
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use engine::spawn::{WindowSize, window_size};
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, isatty, tcgetpgrp};
use tokio::sync::mpsc::UnboundedSender;

use super::link::Link;
use super::shell::Heard;
use crate::error::{Result, cannot};
use crate::wire::to_shim;

/// How often we look whether we have come into the foreground.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

pub(super) struct Terminal {
    fd: OwnedFd,
    saved: Option<Termios>,
    /// Input is a terminal: we read it.
    typing: bool,
    /// Everything is: what others print needs no translation of ours.
    whole: bool,
    reader: bool,
    writer: Option<(mpsc::Sender<(Vec<u8>, Link)>, JoinHandle<()>)>,
}

impl Terminal {
    /// The one among our standard streams, if there is one.
    pub(super) fn find() -> Result<Option<Self>> {
        let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let all = [output.as_fd(), error.as_fd(), input.as_fd()];
        let is_terminal = all.map(|fd| isatty(fd).unwrap_or(false));
        let Some(fd) = all.iter().zip(is_terminal).find_map(|(fd, is)| is.then_some(fd)) else {
            return Ok(None);
        };
        let fd = fd.try_clone_to_owned().map_err(cannot("use the terminal"))?;
        let [_, _, typing] = is_terminal;
        let whole = is_terminal == [true; 3];
        let (saved, reader, writer) = (None, false, None);
        Ok(Some(Self { fd, saved, typing, whole, reader, writer }))
    }

    fn in_foreground(&self) -> bool {
        tcgetpgrp(&self.fd).is_ok_and(|group| group == getpgrp())
    }

    /// Hands keys on as they are typed, if we are in the foreground.
    pub(super) fn take(&mut self, heard: &UnboundedSender<Heard>) {
        if !self.typing || !self.in_foreground() {
            return;
        }
        if self.saved.is_none()
            && let Ok(settings) = tcgetattr(&self.fd)
        {
            let mut raw = settings.clone();
            cfmakeraw(&mut raw);
            if !self.whole {
                raw.output_flags.insert(OutputFlags::OPOST);
            }
            if tcsetattr(&self.fd, SetArg::TCSADRAIN, &raw).is_ok() {
                self.saved = Some(settings);
            }
        }
        if !self.reader {
            self.reader = true;
            let heard = heard.clone();
            std::thread::spawn(move || read_keys(&heard));
        }
    }

    /// Whether it is raw now.
    pub(super) fn is_raw(&self) -> bool {
        self.saved.is_some()
    }

    /// When to look again whether we are in the foreground: a shell that puts us there while we run
    /// tells nobody.
    pub(super) fn watch(&self) -> Option<Duration> {
        let background = self.typing && self.saved.is_none();
        background.then_some(LOOK_AGAIN)
    }

    /// Gives the terminal back as it was.
    pub(super) fn give_back(&mut self) {
        if let Some(saved) = self.saved.take() {
            let _ = tcsetattr(&self.fd, SetArg::TCSADRAIN, &saved);
        }
    }

    pub(super) fn size(&self) -> Option<WindowSize> {
        window_size(self.fd.as_fd()).ok()
    }

    /// Prints, in a thread of its own: a terminal can be held up for as long as somebody likes.
    pub(super) fn print(&mut self, bytes: Vec<u8>, shim: Link) {
        if self.writer.is_none()
            && let Ok(fd) = self.fd.try_clone()
        {
            let (send, receive) = mpsc::channel();
            self.writer = Some((send, std::thread::spawn(move || print_all(fd, &receive))));
        }
        if let Some((send, _)) = &self.writer {
            drop(send.send((bytes, shim)));
        }
    }

    /// Waits until all is printed.
    pub(super) fn finish(&mut self) {
        if let Some((send, thread)) = self.writer.take() {
            drop(send);
            drop(thread.join());
        }
        self.give_back();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.give_back();
    }
}

fn read_keys(heard: &UnboundedSender<Heard>) {
    let (mut room, mut input) = ([0; 4096], std::io::stdin().lock());
    loop {
        match input.read(&mut room) {
            Ok(len @ 1..) => {
                let keys = room.get(..len).unwrap_or_default().to_vec();
                if heard.send(Heard::Typed(keys)).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => return,
        }
    }
}

fn print_all(fd: OwnedFd, what: &mpsc::Receiver<(Vec<u8>, Link)>) {
    let mut out = std::fs::File::from(fd);
    while let Ok((bytes, shim)) = what.recv() {
        let _ = out.write_all(&bytes);
        let _ = shim.send(to_shim::Of::Taken(bytes.len() as u64));
    }
}
