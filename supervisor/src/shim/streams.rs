//! The workload's standard streams: who holds which end, and what goes through.
//!
//! - A *terminal*: one pseudo-terminal of ours stands for all streams that are one. What is written
//!   goes to the log and to the client that attached; without one, to the log only.
//! - A *pipe*: output goes to the log and on to the keeper's original, which the shim holds itself,
//!   so that a dead keeper does not cut it; the workload has to wait when the original's reader
//!   does, and finds its pipe broken when that reader is gone. Input comes through the [`Spool`].
//! - *Handed*: the workload gets the keeper's own open file.
mod input;
mod output;

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::unistd::{Gid, Uid, fchown, pipe2};

use self::input::Input;
use self::output::Output;
use super::birth::Birth;
use super::terminal::Terminal;
use crate::definition::Stream;
use crate::error::{Result, cannot};
use crate::log::{Source, Writer};
use crate::spool::Spool;
use crate::wire::Settled;

/// How much may wait for a slow reader.
const WINDOW: usize = 64 << 10;

/// One thing to poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    Terminal,
    /// The workload's output; the number says which.
    Output(usize),
    /// Where it is passed on to.
    Through(usize),
    /// Where input comes from.
    Origin,
    /// Where it goes.
    Feed,
}

/// All three.
pub(super) struct Streams {
    log: Log,
    pub(super) terminal: Option<Terminal>,
    outputs: Vec<Output>,
    input: Option<Input>,
    /// The workload's side, until it has it.
    given: Vec<(String, Option<OwnedFd>)>,
    /// The keeper's own files, for as long as we live: restored programs share them too.
    handed: Vec<(String, OwnedFd)>,
}

/// The log, as long as it can be written.
pub(super) struct Log(Option<Writer>);

impl Log {
    /// A full disk must not stop the workload: the log ends there.
    fn append(&mut self, source: Source, bytes: &[u8]) {
        if let Some(log) = &mut self.0
            && log.append(source, bytes).is_err()
        {
            self.0 = None;
        }
    }
}

impl Streams {
    pub(super) fn new(birth: &Birth, originals: Vec<OwnedFd>) -> Result<Self> {
        let say = "prepare the standard streams";
        let (home, name) = (&birth.home, &birth.definition.name);
        let mut log = Writer::open(&home.logs(name, "log")).map_err(cannot("open the log"))?;
        match birth.from {
            Some(from) => log.undo(from.log),
            None => log.begin(),
        }
        .map_err(cannot("write the log"))?;
        let mut made = Self {
            log: Log(Some(log)),
            terminal: None,
            outputs: Vec::new(),
            input: None,
            given: Vec::new(),
            handed: Vec::new(),
        };
        for (number, original) in originals.into_iter().enumerate() {
            match birth.definition.stream(number) {
                Stream::Terminal => made.add_terminal(birth, &original)?,
                Stream::Handed => made.add_handed(number, original).map_err(cannot(say))?,
                Stream::Pipe if number == 0 => made.add_input(birth, original)?,
                Stream::Pipe if number == 2 && birth.definition.one_output => {
                    made.share_output().map_err(cannot(say))?
                }
                Stream::Pipe => made.add_output(birth, number, original).map_err(cannot(say))?,
            }
        }
        Ok(made)
    }

    fn add_terminal(&mut self, birth: &Birth, original: &OwnedFd) -> Result<()> {
        let say = "make a terminal";
        if self.terminal.is_none() {
            let (terminal, slave) = Terminal::new(original.as_fd()).map_err(cannot(say))?;
            if let Some(user) = &birth.definition.user {
                let (uid, gid) = (Uid::from_raw(user.user), None::<Gid>);
                fchown(&slave, Some(uid), gid).map_err(cannot(say))?;
            }
            self.terminal = Some(terminal);
            self.given.push(("stdio/tty".into(), Some(slave)));
            return Ok(());
        }
        let found = self.given.iter().find(|(key, _)| key == "stdio/tty");
        let slave = found.and_then(|(_, slave)| slave.as_ref());
        let again = slave.map(OwnedFd::try_clone).transpose().map_err(cannot(say))?;
        self.given.push(("stdio/tty".into(), again));
        Ok(())
    }

    fn add_handed(&mut self, number: usize, original: OwnedFd) -> std::io::Result<()> {
        let key = format!("stdio/{number}");
        self.given.push((key.clone(), Some(original.try_clone()?)));
        if metadata(original.as_fd()).is_ok_and(|it| it.is_file()) {
            self.handed.push((key, original));
        }
        Ok(())
    }

    fn add_input(&mut self, birth: &Birth, original: OwnedFd) -> Result<()> {
        let (home, name) = (&birth.home, &birth.definition.name);
        let (path, end) = (home.logs(name, "input"), home.logs(name, "input-end"));
        let anew = birth.from.is_none() && !birth.input_again;
        let spool = Spool::open(&path, &end, anew).map_err(cannot("keep the input"))?;
        let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(cannot("make a pipe"))?;
        set_nonblocking(write.as_fd()).map_err(cannot("make a pipe"))?;
        // Without a schedule there may never be a snapshot that asks for it again. What was let go of
        // cannot be given again: then that goes on too which nobody has read.
        let keeps = birth.from.is_some() || birth.definition.every_ms > 0;
        let again = if keeps || spool.start() == 0 { spool.start() } else { spool.end() };
        let from = birth.from.map_or(again, |from| from.input);
        self.given.push(("stdio/0".into(), Some(read)));
        self.input = Some(Input::new(original, write, spool, (from, keeps)));
        Ok(())
    }

    fn add_output(&mut self, birth: &Birth, number: usize, to: OwnedFd) -> std::io::Result<()> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        set_nonblocking(read.as_fd())?;
        let source = if number == 2 { Source::Error } else { Source::Output };
        let through = (!birth.definition.detached).then_some(to);
        self.given.push((format!("stdio/{number}"), Some(write)));
        self.outputs.push(Output::new(number, source, read, through));
        Ok(())
    }

    /// One pipe for both. As the definition says, not as the originals are now: those of the keeper
    /// that restores are others, and what is restored looks for the streams that it had.
    fn share_output(&mut self) -> std::io::Result<()> {
        let found = self.given.get(1).and_then(|(_, fd)| fd.as_ref());
        let again = found.map(OwnedFd::try_clone).transpose()?;
        self.given.push(("stdio/1".into(), again));
        Ok(())
    }

    /// What to wait for. `attached`: how much the client has yet to take, if there is one.
    pub(super) fn polled(&self, attached: Option<usize>) -> Vec<(Port, BorrowedFd<'_>, PollFlags)> {
        let mut all = Vec::new();
        if let Some(terminal) = &self.terminal {
            let may_read = attached.is_none_or(|waiting| waiting < WINDOW);
            all.extend(terminal.polled(may_read).map(|(fd, what)| (Port::Terminal, fd, what)));
        }
        for (index, output) in self.outputs.iter().enumerate() {
            all.extend(
                output.polled_source().map(|fd| (Port::Output(index), fd, PollFlags::POLLIN)),
            );
            all.extend(output.polled_through().map(|(fd, what)| (Port::Through(index), fd, what)));
        }
        if let Some(input) = &self.input {
            all.extend(input.polled_origin().map(|fd| (Port::Origin, fd, PollFlags::POLLIN)));
            all.extend(input.polled_feed().map(|(fd, what)| (Port::Feed, fd, what)));
        }
        all
    }

    /// Does what `port` is ready for. Returns what was written to the terminal.
    pub(super) fn serve(&mut self, port: Port, seen: PollFlags) -> Vec<u8> {
        match port {
            Port::Terminal => return self.serve_terminal(seen),
            Port::Output(index) => {
                if let Some(output) = self.outputs.get_mut(index) {
                    output.take(&mut self.log, false);
                }
            }
            Port::Through(index) => {
                if let Some(output) = self.outputs.get_mut(index) {
                    output.pass_on(seen);
                }
            }
            Port::Origin => drop(self.input.as_mut().map(Input::take)),
            Port::Feed => drop(self.input.as_mut().map(|input| input.feed(seen))),
        }
        Vec::new()
    }

    fn serve_terminal(&mut self, seen: PollFlags) -> Vec<u8> {
        let Some(terminal) = &mut self.terminal else { return Vec::new() };
        if seen.contains(PollFlags::POLLOUT) {
            terminal.type_on();
        }
        let written = terminal.take();
        self.log.append(Source::Terminal, &written);
        written
    }

    /// The tree stands still: takes all that it has written. Returns what is for the terminal, and
    /// where log and input stand.
    pub(super) fn settle(&mut self) -> (Vec<u8>, Settled) {
        let mut written = Vec::new();
        while let more @ [_, ..] = self.serve_terminal(PollFlags::empty()).as_slice() {
            written.extend_from_slice(more);
        }
        for output in &mut self.outputs {
            output.take(&mut self.log, true);
        }
        let input = self.input.as_ref().map_or(0, Input::read_by_workload);
        let log = self.log.0.as_ref().map_or(0, Writer::position);
        if let Some(log) = &self.log.0 {
            let _ = log.sync();
        }
        if let Some(input) = &mut self.input {
            input.keep_from_now_on();
        }
        (written, Settled { log, input, first: 0 })
    }

    /// The workload's three streams, before it starts.
    pub(super) fn given(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.given.iter().filter_map(|(_, fd)| fd.as_ref()).map(AsFd::as_fd)
    }

    /// The workload has its side: we let go of it, or would never see the end of it.
    pub(super) fn hand_over(&mut self) {
        self.given.clear();
    }

    /// What the engine is told: by name, our side, or for a restore the workload's.
    pub(super) fn externals(&self, restore: bool) -> Result<Vec<(String, OwnedFd)>> {
        let say = "pass the standard streams";
        if restore {
            let given = self.given.iter().filter_map(|(key, fd)| Some((key, fd.as_ref()?)));
            let kept = given.filter(|(_, fd)| !is_null(fd.as_fd()));
            let copy = |(key, fd): (&String, &OwnedFd)| Ok((key.clone(), fd.try_clone()?));
            return kept.map(copy).collect::<std::io::Result<_>>().map_err(cannot(say));
        }
        let mut all = Vec::new();
        if let Some(terminal) = &self.terminal {
            all.push(("stdio/tty".to_owned(), terminal.slave().map_err(cannot(say))?));
        }
        let handed = self.handed.iter().map(|(key, fd)| (key.clone(), fd.as_fd()));
        let outputs = self.outputs.iter().filter_map(Output::external);
        let input = self.input.as_ref().and_then(Input::external);
        let input = input.map(|fd| ("stdio/0".to_owned(), fd));
        for (key, fd) in handed.chain(outputs).chain(input) {
            all.push((key, fd.try_clone_to_owned().map_err(cannot(say))?));
        }
        Ok(all)
    }

    /// The keeper's files, by name.
    pub(super) fn handed(&self) -> impl Iterator<Item = (String, BorrowedFd<'_>)> {
        self.handed.iter().map(|(key, fd)| (key.clone(), fd.as_fd()))
    }

    /// Whether everything that was written has been passed on.
    pub(super) fn is_flushed(&self) -> bool {
        self.outputs.iter().all(Output::is_flushed)
    }

    pub(super) fn trim_input(&self, position: u64) {
        if let Some(input) = &self.input {
            input.trim(position);
        }
    }
}

fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop)
}

fn metadata(fd: BorrowedFd<'_>) -> std::io::Result<fs::Metadata> {
    fs::File::from(fd.try_clone_to_owned()?).metadata()
}

fn is_null(fd: BorrowedFd<'_>) -> bool {
    metadata(fd).is_ok_and(|it| it.file_type().is_char_device() && it.rdev() == NULL)
}

/// `/dev/null`: `Documentation/admin-guide/devices.txt`, 1:3.
const NULL: u64 = 0x103;
