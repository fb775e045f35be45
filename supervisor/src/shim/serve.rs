//! The loop: signals, connections, streams.
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use engine::spawn::WindowSize;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getpgid};

use super::birth::Birth;
use super::children::{Children, News};
use super::clients::Client;
use super::streams::{Port, Streams};
use super::work::Order;
use crate::definition::Definition;
use crate::error::{Error, Result, cannot};
use crate::home::{Home, Lock};
use crate::wire::{
    Channel, Ended, Fault, Resize, Settled, Signal as Send, Status, Streams as Names, VERSION,
    Watching, Whom, from_shim, to_shim,
};

/// How long what is left of a tree has to end by itself.
const GRACE: Duration = Duration::from_secs(10);

/// What poll(2) found ready.
#[derive(Clone, Copy)]
enum Ready {
    Signals,
    Listener,
    Client(u32),
    Stream(Port),
}

pub(super) struct Shim {
    home: Home,
    pub(super) definition: Definition,
    _lock: Lock,
    pub(super) streams: Streams,
    pub(super) children: Children,
    signals: SignalFd,
    listener: UnixListener,
    pub(super) clients: BTreeMap<u32, Client>,
    next_client: u32,
    pub(super) orders: VecDeque<Order>,
    /// What the workload has drawn is not on the terminal that shows it now.
    redraw: bool,
    /// The connection between the worker and who ordered it.
    pub(super) ordered: Option<OwnedFd>,
    /// Who watches over the workload's memory since its last snapshot: kept here, for workers come and go.
    pub(super) watching: Option<(Watching, Vec<OwnedFd>)>,
    end: End,
}

/// How far the end has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The workload runs, or is yet to start.
    No,
    /// Its first process has ended; the others were told to, and have until then.
    Told { by: Instant },
    /// They were killed.
    Killed,
    /// Nobody is left; what they wrote goes on its way.
    Gone,
}

impl Shim {
    pub(super) fn new(mut birth: Birth) -> Result<Self> {
        SigSet::all().thread_set_mask().map_err(cannot("block signals"))?;
        let mut watched = SigSet::empty();
        watched.add(Signal::SIGCHLD);
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&watched, flags).map_err(cannot("watch signals"))?;
        let listener = birth.home.listen(&birth.definition.name, "shim")?;
        listener.set_nonblocking(true).map_err(cannot("listen"))?;
        let _ = fs::remove_file(birth.home.run(&birth.definition.name, "exit"));
        let originals = std::mem::take(&mut birth.originals);
        Ok(Self {
            streams: Streams::new(&birth, originals)?,
            children: Children::new(!birth.definition.host_pids),
            home: birth.home,
            definition: birth.definition,
            _lock: birth.lock,
            signals,
            listener,
            clients: BTreeMap::new(),
            next_client: 0,
            orders: VecDeque::new(),
            redraw: false,
            ordered: None,
            watching: None,
            end: End::No,
        })
    }

    pub(super) fn serve(mut self, keeper: Channel) -> Result<()> {
        let keeper = self.add_client(keeper.into_socket())?;
        self.tell(keeper, from_shim::Of::Status(self.status()));
        while !self.is_done() {
            for (ready, seen) in self.wait()? {
                self.attend(ready, seen);
            }
            self.let_go_of_clients();
            self.go_on_ending();
        }
        let _ = fs::remove_file(self.home.run(&self.definition.name, "shim"));
        Ok(())
    }

    /// A shim whose keeper died before anything was started has nothing to live for.
    fn is_done(&self) -> bool {
        let idle = self.children.first.is_none() && self.children.worker.is_none();
        let flushed = self.clients.values().all(Client::is_flushed);
        (self.end == End::Gone && flushed) || (idle && self.clients.is_empty())
    }

    fn let_go_of_clients(&mut self) {
        let left = |client: &Client| client.is_gone() && client.terminal;
        if self.clients.values().any(left)
            && let Some(terminal) = &self.streams.terminal
        {
            terminal.give_back_original();
        }
        self.clients.retain(|_, client| !client.is_gone());
    }

    fn wait(&self) -> Result<Vec<(Ready, PollFlags)>> {
        let attached = self.clients.values().find(|client| client.terminal);
        let streams = self.streams.polled(attached.map(|client| client.untaken));
        let mut all = vec![
            (Ready::Signals, self.signals.as_fd(), PollFlags::POLLIN),
            (Ready::Listener, self.listener.as_fd(), PollFlags::POLLIN),
        ];
        all.extend(streams.into_iter().map(|(port, fd, what)| (Ready::Stream(port), fd, what)));
        for (id, client) in &self.clients {
            let (fd, what) = client.polled();
            all.push((Ready::Client(*id), fd, what));
        }
        let mut polled: Vec<_> = all.iter().map(|(_, fd, what)| PollFd::new(*fd, *what)).collect();
        let timeout =
            if self.end == End::No { PollTimeout::NONE } else { PollTimeout::from(100u8) };
        match poll(&mut polled, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(cannot("poll")(errno)),
        }
        let seen = polled.iter().map(|one| one.revents().unwrap_or(PollFlags::empty()));
        let ready = all.iter().map(|(ready, _, _)| *ready).zip(seen);
        Ok(ready.filter(|(_, seen)| !seen.is_empty()).collect())
    }

    fn attend(&mut self, ready: Ready, seen: PollFlags) {
        match ready {
            Ready::Signals => self.attend_signals(),
            Ready::Listener => {
                if let Ok((socket, _)) = self.listener.accept() {
                    let _ = self.add_client(socket);
                }
            }
            Ready::Stream(port) => {
                let written = self.streams.serve(port, seen);
                self.show(written);
            }
            Ready::Client(id) => self.attend_client(id, seen),
        }
    }

    fn attend_signals(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        for news in self.children.reap() {
            match news {
                News::FirstEnded(ended) => self.first_ended(ended),
                News::FirstStopped(by) => self.announce(&from_shim::Of::Stopped(by)),
                News::WorkerEnded(pid, ended) => {
                    self.say_how_it_ended(ended);
                    self.announce(&from_shim::Of::Worked(pid.as_raw()));
                    // Who ordered it finds its connection closed if this fails.
                    let _ = self.next_order();
                }
            }
        }
    }

    fn attend_client(&mut self, id: u32, seen: PollFlags) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if seen.contains(PollFlags::POLLOUT) {
            client.flush();
        }
        if !seen.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            return;
        }
        for request in client.receive() {
            if let Err(error) = self.perform(id, request) {
                self.tell(id, from_shim::Of::Refused(Fault::of(&error)));
            }
        }
    }

    fn perform(&mut self, from: u32, request: to_shim::Of) -> Result<()> {
        match request {
            to_shim::Of::Start(_) => self.start(from)?,
            to_shim::Of::Work(work) => self.work(from, work)?,
            to_shim::Of::Signal(signal) => self.signal(signal)?,
            to_shim::Of::Attach(what) => {
                let terminal = what.terminal;
                let client = self.clients.get_mut(&from);
                drop(client.map(|it| (it.attached, it.terminal) = (true, terminal)));
            }
            to_shim::Of::Input(bytes) => {
                drop(self.streams.terminal.as_mut().map(|terminal| terminal.type_in(&bytes)));
            }
            to_shim::Of::Taken(len) => {
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                let client = self.clients.get_mut(&from);
                drop(client.map(|it| it.untaken = it.untaken.saturating_sub(len)));
            }
            to_shim::Of::Resize(size) => self.resize(size),
            to_shim::Of::TrimInput(position) => self.streams.trim_input(position),
            to_shim::Of::Ask(_) => self.tell(from, from_shim::Of::Status(self.status())),
            to_shim::Of::TakeOver(_) => self.hand_files(from),
            to_shim::Of::Settle(_) => {
                let (written, settled) = self.streams.settle();
                self.show(written);
                let first = self.status().first;
                self.tell(from, from_shim::Of::Settled(Settled { first, ..settled }));
            }
            to_shim::Of::Watch(watching) => self.watch(from, watching),
            to_shim::Of::Adopt(first) => self.adopt(from, Pid::from_raw(first)),
            to_shim::Of::Configure(_) => return Err(Error::Lost("a confused client")),
        }
        Ok(())
    }

    fn start(&mut self, from: u32) -> Result<()> {
        if self.children.first.is_some() {
            let name = &self.definition.name;
            return Err(Error::Busy(format!("workload {name:?} runs already")));
        }
        self.children.start(&self.definition, &self.streams)?;
        self.streams.hand_over();
        self.tell(from, from_shim::Of::Status(self.status()));
        Ok(())
    }

    /// A new keeper may have to make our successor: it gets the files that the workload shares with
    /// those who started it.
    fn hand_files(&mut self, to: u32) {
        let (keys, fds): (Vec<_>, Vec<_>) = self.streams.handed().unzip();
        if let Some(client) = self.clients.get_mut(&to) {
            // What happens from now on is news that it must not miss.
            client.attached = true;
            client.send_first(from_shim::Of::Streams(Names { keys, watching: None }), &fds);
        }
        self.tell(to, from_shim::Of::Status(self.status()));
    }

    /// Someone brought the tree back: as if we had started it.
    fn adopt(&mut self, worker: u32, first: Pid) {
        self.streams.hand_over();
        self.redraw = true;
        let ended = self.children.adopt(first);
        if let (Some(terminal), Ok(group)) = (&self.streams.terminal, getpgid(Some(first)))
            && terminal.foreground().is_none()
        {
            terminal.set_foreground(group);
        }
        self.tell(worker, from_shim::Of::Status(self.status()));
        self.announce(&from_shim::Of::Status(self.status()));
        drop(ended.map(|ended| self.first_ended(ended)));
    }

    fn signal(&self, signal: Send) -> Result<()> {
        let number = Signal::try_from(signal.number).map_err(cannot("send this signal"))?;
        let foreground =
            self.streams.terminal.as_ref().and_then(super::terminal::Terminal::foreground);
        match (Whom::try_from(signal.whom).unwrap_or(Whom::First), foreground) {
            (Whom::First, _) => {
                let first = self.children.first.filter(|_| self.children.ended.is_none());
                first.map_or(Ok(()), |pid| kill(pid, number)).map_err(cannot("send a signal"))?;
            }
            (Whom::Foreground, Some(group)) => {
                let _ = kill(Pid::from_raw(-group.as_raw()), number);
            }
            (Whom::Foreground, None) => self.children.signal_group(Some(number)),
            (Whom::All, _) => self.children.signal_all(number),
        }
        Ok(())
    }

    /// Programs draw anew when the window changes; so they have to be told that it did when it is
    /// another one of the same size. Those that do not handle the signal do not get it.
    fn resize(&mut self, size: Resize) {
        let short = |number| u16::try_from(number).unwrap_or(u16::MAX);
        let size = WindowSize { rows: short(size.rows), columns: short(size.columns) };
        let Some(terminal) = &self.streams.terminal else { return };
        let told = terminal.resize(size).unwrap_or(false);
        if std::mem::take(&mut self.redraw)
            && !told
            && let Some(group) = terminal.foreground()
        {
            let _ = kill(Pid::from_raw(-group.as_raw()), Signal::SIGWINCH);
        }
    }

    /// Says how it ended, to those who are there and to those who come later, and tells the rest
    /// of the tree to end too.
    fn first_ended(&mut self, ended: Ended) {
        let path = self.home.run(&self.definition.name, "exit");
        let _ = fs::write(path, ended.written());
        self.announce(&from_shim::Of::Ended(ended));
        self.children.signal_all(Signal::SIGTERM);
        self.children.signal_all(Signal::SIGCONT);
        self.end = End::Told { by: now() + GRACE };
    }

    fn go_on_ending(&mut self) {
        let Some(ended) = self.children.ended else { return };
        match self.end {
            End::Told { by } if now() >= by => {
                self.children.signal_all(Signal::SIGKILL);
                self.end = End::Killed;
            }
            End::No | End::Gone => return,
            End::Told { .. } | End::Killed => {}
        }
        if self.children.all_gone() {
            let (written, _) = self.streams.settle();
            self.show(written);
            if self.streams.is_flushed() {
                self.announce(&from_shim::Of::Gone(ended));
                self.end = End::Gone;
            }
        }
    }

    fn status(&self) -> Status {
        Status {
            version: VERSION,
            first: self.children.first.map_or(0, Pid::as_raw),
            ended: self.children.ended,
            worker: self.children.worker.map_or(0, Pid::as_raw),
        }
    }

    pub(super) fn add_client(&mut self, socket: UnixStream) -> Result<u32> {
        self.next_client += 1;
        self.clients.insert(self.next_client, Client::new(socket)?);
        Ok(self.next_client)
    }

    pub(super) fn tell(&mut self, id: u32, message: from_shim::Of) {
        drop(self.clients.get_mut(&id).map(|client| client.send(message)));
    }

    fn announce(&mut self, message: &from_shim::Of) {
        let attached = self.clients.values_mut().filter(|client| client.attached);
        attached.for_each(|client| client.send(message.clone()));
    }

    /// Passes on what was written to the terminal.
    fn show(&mut self, written: Vec<u8>) {
        if written.is_empty() {
            return;
        }
        if let Some(client) = self.clients.values_mut().find(|client| client.terminal) {
            client.untaken += written.len();
            client.send(from_shim::Of::Output(written));
        }
    }
}

#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}
