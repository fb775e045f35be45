//! Workers: started inside our namespaces for a keeper that asks for one.
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;

use engine::passing;
use engine::spawn::{Program, spawn};
use nix::libc::SIGKILL;
use nix::unistd::Pid;

use super::serve::Shim;
use crate::error::{Error, Result, Sort, cannot};
use crate::wire::{
    Empty, Ended, Fault, FromWorker, Streams as Names, Watching, Work, encode, from_shim,
    from_worker,
};

/// Where a worker finds its connections: to the keeper, to us.
const TO_KEEPER: i32 = 3;
const TO_SHIM: i32 = 4;
/// Its own program.
const PROGRAM: i32 = 5;

/// A worker that is to be started.
pub(super) struct Order {
    from: u32,
    work: Work,
    program: OwnedFd,
    channel: OwnedFd,
}

impl Shim {
    /// One at a time: the one before may have said that it is done, and not be gone yet.
    pub(super) fn work(&mut self, from: u32, work: Work) -> Result<()> {
        let client = self.clients.get_mut(&from).ok_or(Error::Lost("keeper"))?;
        let (program, channel) = (client.passed.pop_front(), client.passed.pop_front());
        let (Some(program), Some(channel)) = (program, channel) else {
            return Err(Error::Lost("keeper"));
        };
        self.orders.push_back(Order { from, work, program, channel });
        self.next_order()
    }

    /// Starts the next worker, if there is to be one and none is at work.
    pub(super) fn next_order(&mut self) -> Result<()> {
        if self.children.worker.is_some() {
            return Ok(());
        }
        let Some(order) = self.orders.pop_front() else { return Ok(()) };
        if self.children.ended.is_some() {
            return Ok(()); // Nobody is left to work on. Who ordered it hears of that.
        }
        let externals = self.streams.externals(order.work.restore)?;
        let (ours, theirs) = UnixStream::pair().map_err(cannot("make a connection"))?;
        let pid = self.spawn_worker(&order, &theirs)?;
        self.children.work(pid);
        self.ordered = Some(order.channel);
        let worker = self.add_client(ours)?;
        let (keys, fds): (Vec<_>, Vec<_>) = externals.into_iter().unzip();
        // From here on they are the worker's. If it dies, nobody knows any more what has changed.
        let (watching, watchers) = self.watching.take().unwrap_or_default();
        let fds: Vec<_> = fds.iter().chain(&watchers).map(AsFd::as_fd).collect();
        if let Some(worker) = self.clients.get_mut(&worker) {
            let streams = Names { keys, watching: Some(watching) };
            worker.send_first(from_shim::Of::Streams(streams), &fds);
        }
        self.tell(order.from, from_shim::Of::Working(pid.as_raw()));
        Ok(())
    }

    /// Keeps who watches for the next worker.
    pub(super) fn watch(&mut self, worker: u32, watching: Watching) {
        let Some(client) = self.clients.get_mut(&worker) else { return };
        let watchers = client.passed.drain(..).collect::<Vec<_>>();
        self.watching = (watchers.len() == watching.spaces.len()).then_some((watching, watchers));
        self.tell(worker, from_shim::Of::Watching(Empty {}));
    }

    /// A worker that has died says no more: whoever ordered it hears of that from us.
    pub(super) fn say_how_it_ended(&mut self, ended: Ended) {
        let ordered = self.ordered.take().filter(|_| ended.code() != 0);
        let text = format!("the worker that was at it {}", told(ended));
        let fault = Fault::new(Sort::Failed, text);
        let message = FromWorker { of: Some(from_worker::Of::Failed(fault)) };
        // One who is gone, or has stopped reading, is not waited for.
        if let Some(keeper) = ordered.map(UnixStream::from)
            && keeper.set_nonblocking(true).is_ok()
        {
            let _ = passing::send(keeper.as_fd(), &encode(&message), &[]);
        }
    }

    /// With a pid from the top of the range, so that it is in nobody's way.
    fn spawn_worker(&self, order: &Order, shim: &UnixStream) -> Result<Pid> {
        let Order { work, program, channel, .. } = order;
        // By the number that it has in the worker: ours may be taken there by something else.
        let path = format!("/proc/self/fd/{PROGRAM}");
        let text = |bytes: Vec<u8>| CString::new(bytes).ok();
        let null = fs::File::options().read(true).write(true).open("/dev/null");
        let null = null.map_err(cannot("open /dev/null"))?;
        let fds = [(null.as_fd(), 0), (null.as_fd(), 1), (null.as_fd(), 2)];
        let ours =
            [(channel.as_fd(), TO_KEEPER), (shim.as_fd(), TO_SHIM), (program.as_fd(), PROGRAM)];
        let mut worker = Program {
            paths: text(path.into()).into_iter().collect(),
            args: work.args.iter().cloned().filter_map(text).collect(),
            env: environment(),
            cwd: Some(c"/".to_owned()),
            umask: Some(0o077),
            fds: fds.into_iter().chain(ours).collect(),
            pid: None,
            own_group: true,
            foreground_of: None,
            credentials: None,
        };
        let top = if self.definition.host_pids { None } else { pid_max() };
        for pid in (1..=64).filter_map(|below| Some(top? - below)) {
            worker.pid = Some(pid);
            match spawn(&worker) {
                Err(engine::spawn::SpawnError::Clone(nix::errno::Errno::EEXIST)) => {}
                other => {
                    return other.map_err(|error| {
                        Error::Refused(format!("cannot start a worker: {error:?}"))
                    });
                }
            }
        }
        worker.pid = None;
        spawn(&worker).map_err(|error| Error::Refused(format!("cannot start a worker: {error:?}")))
    }
}

/// Of ours, a worker gets what says where to tell what it does.
fn environment() -> Vec<CString> {
    let told = ["SNAPD_LOG", "SNAPD_LOG_FILE"].iter().filter_map(|name| {
        let value = std::env::var_os(name)?;
        CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
    });
    told.chain([c"PATH=/usr/bin:/bin".to_owned()]).collect()
}

/// What it died of, as far as that is known from outside.
fn told(ended: Ended) -> String {
    match ended {
        Ended { signal: 0, status } => format!("ended with status {status}"),
        Ended { signal: SIGKILL, .. } => {
            format!("was killed by signal {SIGKILL}: by somebody, or for want of memory")
        }
        Ended { signal, .. } => format!("was killed by signal {signal}"),
    }
}

fn pid_max() -> Option<i32> {
    fs::read_to_string("/proc/sys/kernel/pid_max").ok()?.trim().parse().ok()
}
