//! The keeper's end of a shim: making one, meeting one, having a worker started in it.
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::spawn::{Program, spawn};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc::UnboundedSender;

use super::Charge;
use super::shell::Heard;
use super::standard::Held;
use crate::error::{Error, Result, cannot};
use crate::shim::CONNECTION;
use crate::wire::{
    Attach, Channel, Configure, Empty, FromShim, FromWorker, Settled, Status, ToShim, ToWorker,
    VERSION, Work, from_shim, from_worker, to_shim, to_worker,
};

/// Where a new shim goes on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct GoingOn {
    /// Its log and input, after a restore.
    pub(super) from: Option<Settled>,
    /// Its input from the beginning, after a run that came to nothing.
    pub(super) input_again: bool,
}

/// A shim at the other end of a connection.
pub(super) struct Link {
    channel: Channel,
    /// One message at a time: the thread that prints sends some too.
    turn: Arc<Mutex<()>>,
    /// On the host.
    pub(super) shim: Pid,
}

impl Link {
    /// Makes a shim with these standard streams.
    pub(super) fn make(charge: &Charge, how: GoingOn, streams: &[OwnedFd]) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().map_err(cannot("make a connection"))?;
        let outer = start(&theirs, streams)?;
        drop(theirs);
        let mut channel = Channel::new(ours, "shim");
        let dir = charge.home.dir().as_os_str().as_bytes().to_vec();
        let definition = charge.definition.clone();
        let (from, input_again) = (how.from, how.input_again);
        let configure = Configure { version: VERSION, dir, definition, from, input_again };
        channel.send(&ToShim { of: Some(to_shim::Of::Configure(configure)) }, &[])?;
        let said = channel.expect::<FromShim>();
        let _ = waitpid(outer, None);
        match said?.of {
            Some(from_shim::Of::Status(_)) => Self::meet(charge),
            Some(from_shim::Of::Refused(fault)) => Err(Error::Told(Box::new(fault))),
            _ => Err(Error::Lost("shim")),
        }
        .inspect(|_| drop(channel))
    }

    /// Connects to a shim that is there.
    pub(super) fn meet(charge: &Charge) -> Result<Self> {
        let socket = charge.home.connect(&charge.definition.name, "shim")?;
        let peer = getsockopt(&socket, PeerCredentials).map_err(cannot("know the shim"))?;
        let shim = Pid::from_raw(peer.pid());
        Ok(Self { channel: Channel::new(socket, "shim"), turn: Arc::default(), shim })
    }

    /// How the workload is, and the files among its standard streams: what a keeper that takes over
    /// has to know first.
    pub(super) fn take_over(&mut self) -> Result<(Status, Held)> {
        self.send(to_shim::Of::TakeOver(Empty {}))?;
        let mut held = Held::new();
        loop {
            match self.channel.expect::<FromShim>()?.of {
                Some(from_shim::Of::Streams(names)) => {
                    for key in names.keys {
                        let number = key.strip_prefix("stdio/").and_then(|it| it.parse().ok());
                        held.extend(number.zip(self.channel.take_passed()));
                    }
                }
                Some(from_shim::Of::Status(status)) => return Ok((status, held)),
                _ => {}
            }
        }
    }

    /// Lets go of it: one in which nothing runs ends then.
    pub(super) fn leave(&self) {
        let _ = self.channel.socket().shutdown(std::net::Shutdown::Both);
    }

    /// From now on reports what the shim says; and when it is gone, with all that lived in it.
    pub(super) fn listen(&mut self, terminal: bool, heard: UnboundedSender<Heard>) -> Result<()> {
        let (say, socket) = ("listen to the shim", self.channel.socket().try_clone());
        let socket = socket.map_err(cannot(say))?;
        socket.set_nonblocking(true).map_err(cannot(say))?;
        let mut socket = tokio::net::UnixStream::from_std(socket).map_err(cannot(say))?;
        self.send(to_shim::Of::Attach(Attach { terminal }))?;
        let shim = self.shim;
        let mut frames = self.channel.take_frames();
        tokio::spawn(async move {
            let mut room = vec![0; 64 << 10];
            loop {
                while let Ok(Some(FromShim { of })) = frames.next::<FromShim>() {
                    drop(of.map(|of| heard.send(Heard::Shim(of))));
                }
                let Ok(len @ 1..) = socket.read(&mut room).await else { break };
                frames.push(room.get(..len).unwrap_or_default());
            }
            // Its descriptors are closed before its namespace is cleared: wait for the latter.
            while is_alive(shim) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            drop(heard.send(Heard::ShimGone(shim)));
        });
        Ok(())
    }

    pub(super) fn send(&self, of: to_shim::Of) -> Result<()> {
        let _turn = self.turn.lock();
        self.channel.send(&ToShim { of: Some(of) }, &[])
    }

    /// Another way to the same shim, for another thread.
    pub(super) fn again(&self) -> Result<Self> {
        let socket = self.channel.socket().try_clone().map_err(cannot("use the shim"))?;
        let (channel, turn) = (Channel::new(socket, "shim"), Arc::clone(&self.turn));
        Ok(Self { channel, turn, shim: self.shim })
    }

    /// Starts the first process.
    pub(super) fn start(&self) -> Result<()> {
        self.send(to_shim::Of::Start(Empty {}))
    }

    /// Starts a worker with a request; its result is reported.
    pub(super) fn work(
        &self,
        program: &std::path::Path,
        request: to_worker::Of,
        heard: UnboundedSender<Heard>,
    ) -> Result<()> {
        let restore = matches!(request, to_worker::Of::Bring(_));
        let program = File::open(program).map_err(cannot("open our own program"))?;
        let (ours, theirs) = UnixStream::pair().map_err(cannot("make a connection"))?;
        let work = Work { restore, args: vec![b"snapd".to_vec(), b"__worker".to_vec()] };
        let message = ToShim { of: Some(to_shim::Of::Work(work)) };
        let turn = self.turn.lock();
        self.channel.send(&message, &[program.as_fd(), theirs.as_fd()])?;
        drop(turn);
        drop(theirs);
        std::thread::spawn(move || {
            let result = converse(Channel::new(ours, "worker"), request, &heard);
            drop(heard.send(Heard::Worker(result)));
        });
        Ok(())
    }
}

fn converse(
    mut worker: Channel,
    request: to_worker::Of,
    heard: &UnboundedSender<Heard>,
) -> Result<from_worker::Of> {
    // Of one that has died already there is word to be read.
    drop(worker.send(&ToWorker { of: Some(request) }, &[]));
    loop {
        match worker.expect::<FromWorker>()?.of {
            Some(from_worker::Of::Progress(it)) => drop(heard.send(Heard::Progress(it))),
            None => {}
            Some(from_worker::Of::Failed(fault)) => return Err(Error::Told(Box::new(fault))),
            Some(result) => return Ok(result),
        }
    }
}

/// Starts the outer of the shim's two processes.
fn start(connection: &UnixStream, streams: &[OwnedFd]) -> Result<Pid> {
    let standard = streams.iter().map(AsFd::as_fd).zip(0..CONNECTION);
    let fds: Vec<(BorrowedFd<'_>, i32)> =
        standard.chain([(connection.as_fd(), CONNECTION)]).collect();
    let env = std::env::vars_os().filter_map(|(name, value)| {
        CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
    });
    let program = Program {
        paths: vec![c"/proc/self/exe".to_owned()],
        args: vec![c"snapd".to_owned(), c"__shim".to_owned()],
        env: env.collect(),
        cwd: None,
        umask: None,
        fds,
        pid: None,
        own_group: true,
        foreground_of: None,
        credentials: None,
    };
    spawn(&program).map_err(|error| Error::Refused(format!("cannot start the shim: {error:?}")))
}

/// A zombie is not: its namespace is empty by then.
fn is_alive(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !"ZX".contains(state))
}

/// The first process on the host: the shim's child that has this number inside.
pub(crate) fn outer_pid(shim: Pid, inner: i32) -> Option<i32> {
    let list = std::fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).ok()?;
    let mut children = list.split_whitespace().filter_map(|word| word.parse().ok());
    children.find(|pid| inner_pid(*pid) == Some(inner))
}

/// All processes of the shim's namespace, by their numbers inside: those on the host.
pub(super) fn outer_pids(shim: Pid) -> BTreeMap<i32, i32> {
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(theirs) = namespace(shim.as_raw()) else { return BTreeMap::new() };
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let inside = numbers.filter(|pid| namespace(*pid).as_ref() == Some(&theirs));
    inside.filter_map(|pid| Some((inner_pid(pid)?, pid))).collect()
}

/// The number that a process sees itself.
fn inner_pid(pid: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let all = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    all.split_whitespace().last()?.parse().ok()
}
