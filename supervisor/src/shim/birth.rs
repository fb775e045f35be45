//! From a process that a keeper started to PID 1 of namespaces of its own.
//!
//! PID and time namespaces take effect for children only, hence two processes: the outer one makes
//! the namespaces and ends, so that the inner one is nobody's child any more when its keeper dies.
//! Only mount and PID namespaces are visible to the workload at once: its own `/proc`, and mounts of
//! the host that arrive (slave) without its own going back.
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use engine::spawn::{Side, split};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd;

use crate::definition::Definition;
use crate::error::{Error, Result, cannot};
use crate::home::{Home, Lock};
use crate::wire::{Channel, Configure, Settled, ToShim, VERSION, to_shim};

/// Where the outer process finds its connection to the keeper. Its standard streams are what the
/// keeper has of the workload's.
pub const CONNECTION: i32 = 3;

/// Which of the two processes this is.
pub(super) enum Born {
    /// Done.
    Outer,
    /// With all it needs.
    Shim(Box<Birth>),
}

/// What a shim starts from.
pub(super) struct Birth {
    pub(super) home: Home,
    pub(super) definition: Definition,
    /// Where log and input go on after a restore.
    pub(super) from: Option<Settled>,
    /// The input that is kept is given from its beginning on.
    pub(super) input_again: bool,
    /// The keeper's standard streams.
    pub(super) originals: Vec<OwnedFd>,
    /// "This workload runs."
    pub(super) lock: Lock,
}

/// Waits for the keeper's first message and does as it says.
pub(super) fn configure(keeper: &mut Channel) -> Result<Born> {
    let first = keeper.expect::<ToShim>()?;
    let Some(to_shim::Of::Configure(configure)) = first.of else {
        return Err(Error::Lost("keeper"));
    };
    let Configure { version, dir, definition, from, input_again } = configure;
    if version != VERSION {
        let text = format!("a keeper of protocol version {version} started a shim of {VERSION}");
        return Err(Error::Refused(text));
    }
    let originals = take_streams()?;
    let home = Home::open(Path::new(OsStr::from_bytes(&dir)))?;
    if separate(definition.host_pids)? == Side::Child {
        let name = &definition.name;
        let lock = wait_for_lock(&home, name)?;
        settle_in(definition.host_pids)?;
        let birth = Birth { home, definition, from, input_again, originals, lock };
        return Ok(Born::Shim(Box::new(birth)));
    }
    Ok(Born::Outer)
}

/// The shim before us may be about to end: its keeper knows so before the kernel has cleaned up.
fn wait_for_lock(home: &Home, name: &str) -> Result<Lock> {
    for _ in 0..50 {
        if let Some(lock) = home.try_lock(name, "lock")? {
            return Ok(lock);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(Error::Busy(format!("workload {name:?} runs already")))
}

/// Puts the standard streams aside, and nothing in their place.
fn take_streams() -> Result<Vec<OwnedFd>> {
    let say = "put the standard streams aside";
    let null = File::options().read(true).write(true).open("/dev/null").map_err(cannot(say))?;
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let ours = [input.as_fd(), output.as_fd(), error.as_fd()];
    let ours: std::io::Result<Vec<_>> =
        ours.iter().map(std::os::fd::BorrowedFd::try_clone_to_owned).collect();
    let ours = ours.map_err(cannot(say))?;
    unistd::dup2_stdin(&null).map_err(cannot(say))?;
    unistd::dup2_stdout(&null).map_err(cannot(say))?;
    unistd::dup2_stderr(&null).map_err(cannot(say))?;
    Ok(ours)
}

/// Makes the namespaces and the process that lives in them.
fn separate(host_pids: bool) -> Result<Side> {
    let mut namespaces = CloneFlags::CLONE_NEWIPC | CloneFlags::from_bits_retain(CLONE_NEWTIME);
    if !host_pids {
        namespaces |= CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
    }
    unshare(namespaces).map_err(cannot("make namespaces (this needs root)"))?;
    split().map_err(cannot("fork"))
}

/// `include/uapi/linux/sched.h`, since 5.6; nix lacks it.
const CLONE_NEWTIME: i32 = 0x80;

/// In the new process: a session of its own, a `/proc` of its own.
fn settle_in(host_pids: bool) -> Result<()> {
    unistd::setsid().map_err(cannot("lead a session"))?;
    if host_pids {
        return nix::sys::prctl::set_child_subreaper(true).map_err(cannot("be a subreaper"));
    }
    let none = None::<&str>;
    let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
    mount(none, "/", none, slave, none).map_err(cannot("separate the mounts"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, none).map_err(cannot("mount /proc"))
}
