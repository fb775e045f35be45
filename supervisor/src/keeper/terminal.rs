//! The keeper's own terminal: raw while the workload's is in charge of line editing and signals.
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc;
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use engine::spawn::{WindowSize, window_size};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, isatty, tcgetpgrp};
use tokio::sync::mpsc::UnboundedSender;

use super::link::Link;
use super::shell::Heard;
use crate::definition::{Definition, Stream};
use crate::error::{Result, cannot};
use crate::wire::to_shim;

/// How often we look whether we have come into the foreground.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

pub(super) struct Terminal {
    /// Where what the workload prints goes.
    out: OwnedFd,
    /// Our own, if we have one: for its size, and to be raw.
    tty: Option<OwnedFd>,
    saved: Option<Termios>,
    /// Where what is typed comes from.
    input: Typing,
    /// Everything is a terminal: what others print needs no translation of ours.
    whole: bool,
    reader: Option<Thread>,
    writer: Option<(mpsc::Sender<(Vec<u8>, Link)>, JoinHandle<()>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Typing {
    /// The workload's input is none of ours.
    No,
    /// From the terminal.
    Keys,
    /// From something else, as `--tty yes` has it: its end is typed, too.
    Fed,
}

/// `^D`: what ends input on a terminal.
const END: u8 = 4;

impl Terminal {
    /// Stands between the workload's terminal, if it has one, and our standard streams.
    pub(super) fn find(definition: &Definition) -> Result<Option<Self>> {
        let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let all = [input.as_fd(), output.as_fd(), error.as_fd()];
        let has = [0, 1, 2].map(|number| definition.stream(number) == Stream::Terminal);
        if has == [false; 3] {
            return Ok(None);
        }
        let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(cannot("use the terminal"));
        let ours = all.map(|fd| isatty(fd).unwrap_or(false));
        // Where people look first.
        let prints = [1, 2, 0].into_iter().find(|number| has.get(*number) == Some(&true));
        let out = own(*prints.and_then(|number| all.get(number)).unwrap_or(&output.as_fd()))?;
        let mut ttys = [1, 2, 0].into_iter().filter(|number| ours.get(*number) == Some(&true));
        let tty = ttys.next().and_then(|number| all.get(number)).map(|fd| own(*fd)).transpose()?;
        let input = match (has, ours) {
            ([false, ..], _) => Typing::No,
            (_, [true, ..]) => Typing::Keys,
            _ => Typing::Fed,
        };
        let (saved, whole, reader, writer) = (None, ours == [true; 3], None, None);
        Ok(Some(Self { out, tty, saved, input, whole, reader, writer }))
    }

    fn in_foreground(&self) -> bool {
        let group = self.tty.as_ref().and_then(|tty| tcgetpgrp(tty).ok());
        group == Some(getpgrp())
    }

    /// Hands keys on as they are typed, if we are in the foreground.
    pub(super) fn take(&mut self, heard: &UnboundedSender<Heard>) {
        match self.input {
            Typing::No => return,
            Typing::Keys if !self.in_foreground() => return,
            Typing::Keys => self.be_raw(),
            Typing::Fed => {}
        }
        if let Some(reader) = &self.reader {
            return reader.unpark();
        }
        let (heard, fed) = (heard.clone(), self.input == Typing::Fed);
        self.reader = Some(std::thread::spawn(move || read_keys(&heard, fed)).thread().clone());
    }

    fn be_raw(&mut self) {
        let Some(tty) = self.tty.as_ref().filter(|_| self.saved.is_none()) else { return };
        let Ok(settings) = tcgetattr(tty) else { return };
        let mut raw = settings.clone();
        cfmakeraw(&mut raw);
        if !self.whole {
            raw.output_flags.insert(OutputFlags::OPOST);
        }
        if tcsetattr(tty, SetArg::TCSADRAIN, &raw).is_ok() {
            self.saved = Some(settings);
        }
    }

    /// Whether it is raw now.
    pub(super) fn is_raw(&self) -> bool {
        self.saved.is_some()
    }

    /// When to look again whether we are in the foreground: a shell that puts us there while we run
    /// tells nobody.
    pub(super) fn watch(&self) -> Option<Duration> {
        let background = self.input == Typing::Keys && self.saved.is_none();
        background.then_some(LOOK_AGAIN)
    }

    /// Gives the terminal back as it was.
    pub(super) fn give_back(&mut self) {
        if let (Some(saved), Some(tty)) = (self.saved.take(), &self.tty) {
            let _ = tcsetattr(tty, SetArg::TCSADRAIN, &saved);
        }
    }

    pub(super) fn size(&self) -> Option<WindowSize> {
        window_size(self.tty.as_ref()?.as_fd()).ok()
    }

    /// Prints, in a thread of its own: a terminal can be held up for as long as somebody likes.
    pub(super) fn print(&mut self, bytes: Vec<u8>, shim: Link) {
        if self.writer.is_none()
            && let Ok(fd) = self.out.try_clone()
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

/// Who reads in the background is stopped (SIGTTIN); who blocks that has EIO instead. It may be that
/// our shell has let us go on there: then keys are not for us, until [`Terminal::take`] finds us in the
/// foreground again.
fn read_keys(heard: &UnboundedSender<Heard>, fed: bool) {
    let _ = SigSet::from(Signal::SIGTTIN).thread_block();
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
            Err(_) if tcgetpgrp(std::io::stdin()).is_ok_and(|group| group != getpgrp()) => {
                std::thread::park();
            }
            Ok(_) if fed => return drop(heard.send(Heard::Typed(vec![END]))),
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
