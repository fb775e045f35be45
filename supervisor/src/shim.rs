//! The shim: PID 1 of the workload's private namespaces, and what the workload must not lose.
//!
//! It holds the pseudo-terminal or pipes and drains them into the log, so that the workload never
//! blocks because its keeper died; keeps piped input; holds the lock that says "this workload runs";
//! starts the first process and workers; reaps. It outlives its keeper. One thread, one poll(2)
//! loop, no state on disk but the log, the input and how the workload ended (`DIR/run/NAME.exit`).
//!
//! Kernel: `kernel/pid_namespace.c` (PID 1's death is everyone's; only signals it handles reach it
//! from inside), `drivers/tty/tty_jobctrl.c` (it leads the session, so that the first process has a
//! foreground group that is not orphaned and `^Z` works), `time_namespaces(7)`.
//!
//! Deliberately absent: decisions. Whether to restore, when to checkpoint, what a crash is: the
//! keeper's.
mod birth;
mod children;
mod clients;
mod serve;
mod streams;
mod terminal;
mod work;

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use engine::passing;

pub use self::birth::CONNECTION;
use crate::error::{Result, cannot};
use crate::wire::{Channel, Fault, FromShim, from_shim};

/// `snapd __shim`: what the hidden command runs. Returns when nothing is left of the workload.
pub fn main() -> Result<()> {
    let socket = passing::inherited(CONNECTION).map_err(cannot("take over the connection"))?;
    let mut keeper = Channel::new(UnixStream::from(socket), "keeper");
    let refused = match birth::configure(&mut keeper) {
        Ok(birth::Born::Outer) => return Ok(()),
        Ok(birth::Born::Shim(born)) => match serve::Shim::new(*born) {
            Ok(shim) => return shim.serve(keeper),
            Err(error) => error,
        },
        Err(error) => error,
    };
    let fault = from_shim::Of::Refused(Fault::of(&refused));
    keeper.send(&FromShim { of: Some(fault) }, &[])?;
    Err(refused)
}

/// Number of a descriptor, for telling things apart.
fn number(of: &impl AsRawFd) -> i32 {
    of.as_raw_fd()
}
