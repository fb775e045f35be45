//! A keeper in the foreground stops together with its workload (`^Z`), for its shell to see. It answers
//! nobody then, and whoever waited for it would wait until somebody says `fg`.
use std::fs;
use std::os::unix::net::UnixStream;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Pid;

use crate::error::{Error, Result, cannot};
use crate::home::Home;
use crate::keeper::outer_pid;
use crate::wire::{
    Channel, Empty, FromShim, Info, ToShim, from_keeper, from_shim, to_keeper, to_shim,
};

/// The answer in the place of a keeper that is stopped, if it is. One that is asked for the end has to
/// go on for that, like a job of a shell.
pub(super) fn answer(
    home: &Home,
    name: &str,
    keeper: &UnixStream,
    of: &to_keeper::Of,
) -> Result<Option<from_keeper::Of>> {
    let pid = peer(keeper)?;
    if !is_stopped(pid.as_raw()) {
        return Ok(None);
    }
    match of {
        to_keeper::Of::Status(_) => info(home, name).map(from_keeper::Of::Info).map(Some),
        to_keeper::Of::Stop(_) | to_keeper::Of::Kill(_) => {
            kill(pid, Signal::SIGCONT).map_err(cannot("let the keeper go on"))?;
            Ok(None)
        }
        _ => Err(Error::Busy(format!(
            "the keeper of workload {name:?} is stopped: let it go on by `fg` or `kill -CONT {pid}`"
        ))),
    }
}

/// What its shim can tell of a workload.
fn info(home: &Home, name: &str) -> Result<Info> {
    let socket = home.connect(name, "shim")?;
    let shim = peer(&socket)?;
    let mut channel = Channel::new(socket, "shim");
    channel.send(&ToShim { of: Some(to_shim::Of::Ask(Empty {})) }, &[])?;
    let Some(from_shim::Of::Status(status)) = channel.expect::<FromShim>()?.of else {
        return Err(Error::Lost("shim"));
    };
    let pid = outer_pid(shim, status.first).unwrap_or(0);
    let state = if is_stopped(pid) { "paused" } else { "running" };
    Ok(Info { state: state.to_owned(), pid, inner_pid: status.first, next_in_ms: None })
}

fn peer(socket: &UnixStream) -> Result<Pid> {
    let peer = getsockopt(socket, PeerCredentials).map_err(cannot("know the other side"))?;
    Ok(Pid::from_raw(peer.pid()))
}

/// By a signal: `T` in `/proc/PID/stat`.
fn is_stopped(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}
