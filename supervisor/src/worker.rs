//! The worker: runs the engine inside a workload's namespaces, for one request.
//!
//! A child of the shim, with a pid from the top of the range, so that every pid that the engine sees
//! is the workload's own and nothing has to be translated. Its death is a tracer's death: the
//! program is unharmed, a half-made restore is gone. It speaks to the keeper, who waits for the
//! result, and to the shim, which holds the standard streams.
use std::ffi::OsStr;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use engine::external::External;
use engine::inventory::{Pid, SpaceId};
use engine::session::{Anchors, Kind, Told, Tracker};
use engine::{modesty, passing};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal};

use crate::bridge::{self, Streams, Watch};
use crate::error::{Error, Result, Sort, cannot};
use crate::home::Home;
use crate::wire::{
    Bring, Brought, Channel, Empty, Fault, Found, FromShim, FromWorker, Settled, Take, Taken,
    ToShim, ToWorker, Watched, Watching, from_shim, from_worker, to_shim, to_worker,
};

/// Where the shim has put our connections.
const TO_KEEPER: i32 = 3;
const TO_SHIM: i32 = 4;
/// `include/uapi/linux/sched.h`, since 5.6; nix lacks it.
const CLONE_NEWTIME: i32 = 0x80;
/// Of more spaces than these nothing is kept: they are taken whole each time.
const MOST_WATCHED: usize = 128;
/// How long freezing may take when obstacles are looked for.
const LOOK: Duration = Duration::from_secs(1);

/// `snapd __worker`: what the hidden command runs.
pub fn main() -> Result<()> {
    // When the workload ends, the shim tells all that is left to end: not us, who may be about to
    // say that its last snapshot is durable. And setting up the terminal of our session from the
    // background must not stop us.
    let deaf = [Signal::SIGTERM, Signal::SIGTTOU, Signal::SIGTTIN, Signal::SIGTSTP, Signal::SIGHUP];
    let deaf: SigSet = deaf.into_iter().collect();
    deaf.thread_block().map_err(cannot("block signals"))?;
    let connect = |number| passing::inherited(number).map_err(cannot("take over a connection"));
    let mut keeper = Channel::new(UnixStream::from(connect(TO_KEEPER)?), "keeper");
    let mut shim = Channel::new(UnixStream::from(connect(TO_SHIM)?), "shim");
    tell_of_panics(&keeper)?;
    let result = given(&mut shim).and_then(|given| {
        let request = keeper.expect::<ToWorker>()?.of.ok_or(Error::Lost("keeper"))?;
        // A keeper that is gone does not keep us from what it wanted.
        let mut tell = |progress| {
            let message = FromWorker { of: Some(from_worker::Of::Progress(progress)) };
            drop(keeper.send(&message, &[]));
        };
        perform(&mut shim, request, given, &mut tell)
    });
    let of = result.unwrap_or_else(|error| from_worker::Of::Failed(Fault::of(&error)));
    keeper.send(&FromWorker { of: Some(of) }, &[])
}

/// A fault of our own has a place and a reason, which nobody reads on our standard error.
fn tell_of_panics(keeper: &Channel) -> Result<()> {
    let socket = keeper.socket().try_clone().map_err(cannot("take over a connection"))?;
    let keeper = Channel::new(socket, "keeper");
    std::panic::set_hook(Box::new(move |panic| {
        let text = format!("a fault of snapd's own: {panic}").replace('\n', " ");
        let fault = Fault::new(Sort::Failed, text);
        drop(keeper.send(&FromWorker { of: Some(from_worker::Of::Failed(fault)) }, &[]));
    }));
    Ok(())
}

fn perform(
    shim: &mut Channel,
    request: to_worker::Of,
    Given { externals, watching }: Given,
    tell: bridge::Tell<'_>,
) -> Result<from_worker::Of> {
    Ok(match request {
        to_worker::Of::Take(take) => {
            from_worker::Of::Taken(self::take(shim, &take, (&externals, watching), tell)?)
        }
        to_worker::Of::Bring(bring) => {
            from_worker::Of::Brought(self::bring(shim, &bring, externals, tell)?)
        }
        to_worker::Of::Look(_) => {
            let roots = join_clocks()?;
            let obstacles = bridge::inspect(&roots, &externals, LOOK, true)?;
            watching.map_or(Ok(()), |watching| keep(shim, &watching))?;
            from_worker::Of::Found(Found { obstacles })
        }
    })
}

fn take(
    shim: &mut Channel,
    take: &Take,
    (externals, watching): (&[External], Option<Watch>),
    tell: bridge::Tell<'_>,
) -> Result<Taken> {
    let home = Home::open(Path::new(OsStr::from_bytes(&take.dir)))?;
    // But in the pause, and where the workload stands until all is written.
    if !take.stop
        && let Err(error) = modesty::give_way()
    {
        tracing::debug!(%error, "cannot give way to the workload");
    }
    let roots = join_clocks()?;
    let given = bridge::Given { roots: &roots, externals, watching };
    let (taken, watching) = bridge::checkpoint(&home, take, given, &mut Settling(shim), tell)?;
    watching.map_or(Ok(()), |watching| keep(shim, &watching))?;
    Ok(taken)
}

/// Gives who watches to the shim, before the next worker wants to have it.
fn keep(shim: &mut Channel, watch: &Watch) -> Result<()> {
    let watched = |one: &Tracker| Watched {
        pid: one.pid.0,
        space: one.space.0,
        soft_dirty: one.kind == Kind::SoftDirty,
        anchors: one.anchors.numbers(),
    };
    let trackers: Vec<_> = watch.trackers.iter().take(MOST_WATCHED).collect();
    let spaces = trackers.iter().map(|one| watched(one)).collect();
    let of = Some(to_shim::Of::Watch(Watching { seq: watch.seq, spaces }));
    let fds: Vec<_> = trackers.iter().map(|one| one.fd.as_fd()).collect();
    shim.send(&ToShim { of }, &fds)?;
    while !matches!(shim.expect::<FromShim>()?.of, Some(from_shim::Of::Watching(_))) {}
    Ok(())
}

fn bring(
    shim: &mut Channel,
    bring: &Bring,
    externals: Vec<External>,
    tell: bridge::Tell<'_>,
) -> Result<Brought> {
    let home = Home::open(Path::new(OsStr::from_bytes(&bring.dir)))?;
    let brought = bridge::restore(&home, bring, externals, tell)?;
    shim.send(&ToShim { of: Some(to_shim::Of::Adopt(brought.first)) }, &[])?;
    // The answer says that it has; only then may the keeper speak of a running workload.
    while !matches!(shim.expect::<FromShim>()?.of, Some(from_shim::Of::Status(_))) {}
    Ok(brought)
}

/// The shim takes all output, and says where log and input stand.
struct Settling<'a>(&'a mut Channel);

impl Streams for Settling<'_> {
    fn settle(&mut self) -> Result<()> {
        self.0.send(&ToShim { of: Some(to_shim::Of::Settle(Empty {})) }, &[])
    }

    fn settled(&mut self) -> Result<Settled> {
        loop {
            if let Some(from_shim::Of::Settled(settled)) = self.0.expect::<FromShim>()?.of {
                return Ok(settled);
            }
        }
    }
}

/// What the shim gives first.
struct Given {
    /// The standard streams.
    externals: Vec<External>,
    /// `None`: an older shim, which keeps nothing.
    watching: Option<Watch>,
}

fn given(shim: &mut Channel) -> Result<Given> {
    let Some(from_shim::Of::Streams(names)) = shim.expect::<FromShim>()?.of else {
        return Err(Error::Lost("shim"));
    };
    let with_fd = |key| Some(External { key, fd: shim.take_passed()? });
    let externals = names.keys.into_iter().filter_map(with_fd).collect();
    let mut tracker = |watched: Watched| {
        let (pid, space) = (Pid(watched.pid), SpaceId(watched.space));
        let kind = if watched.soft_dirty { Kind::SoftDirty } else { Kind::WriteProtect };
        let (anchors, told) = (Anchors::of_numbers(&watched.anchors), Told::default());
        Some(Tracker { pid, space, kind, fd: shim.take_passed()?, anchors, told })
    };
    let watching = names.watching.map(|watching| Watch {
        seq: watching.seq,
        trackers: watching.spaces.into_iter().filter_map(&mut tracker).collect(),
    });
    Ok(Given { externals, watching })
}

/// Goes into the time namespace of the workload, which a restored one has of its own, so that the
/// clocks that the image keeps are the workload's. Returns the roots.
fn join_clocks() -> Result<Vec<Pid>> {
    let roots = roots()?;
    if let Some(root) = roots.first() {
        let say = "join the workload's clocks";
        let clocks =
            File::open(format!("/proc/{root}/ns/time")).map_err(|error| match error.kind() {
                ErrorKind::NotFound => engine::error::Error::Died(*root).into(),
                _ => cannot(say)(error),
            })?;
        setns(clocks, CloneFlags::from_bits_retain(CLONE_NEWTIME)).map_err(cannot(say))?;
    }
    Ok(roots)
}

/// All children of the shim but us: the first process and orphans.
fn roots() -> Result<Vec<Pid>> {
    let (shim, us) = (nix::unistd::getppid(), nix::unistd::getpid());
    let path = format!("/proc/{shim}/task/{shim}/children");
    let list = std::fs::read_to_string(&path).map_err(cannot(format!("read {path}")))?;
    let pids = list.split_whitespace().filter_map(|word| word.parse().ok());
    Ok(pids.filter(|pid| *pid != us.as_raw()).map(Pid).collect())
}
