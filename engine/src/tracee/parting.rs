//! Letting threads go.
//!
//! The first ones run while others are still held. If one calls exec(2), those die, and it waits until
//! they are reaped: by us, who hold them. A program would stand still until we end.
use std::time::Duration;

use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::inventory::Tid;
use crate::sys::wait::Change;
use crate::sys::{ptrace, wait};

/// How often to look for the end of one that is dying, and after which pauses: a second in all.
const LOOKS: u32 = 10_000;
const PAUSE: Duration = Duration::from_micros(100);

/// Detaches from all; those that have died meanwhile are reaped.
pub(super) fn detach(tids: impl Iterator<Item = Tid>) -> Result<()> {
    let (mut dead, mut failed) = (Vec::new(), Ok(()));
    for tid in tids {
        match ptrace::detach(tid.0, 0) {
            Ok(()) => {}
            Err(Errno::ESRCH) => dead.push(tid),
            Err(errno) => failed = Err(Error::Kernel("ptrace(PTRACE_DETACH)", errno)),
        }
    }
    // In reverse: the end of a leader, which has the lowest number as a rule, is told last.
    dead.into_iter().rev().for_each(bury);
    failed
}

fn bury(tid: Tid) {
    for _ in 0..LOOKS {
        match wait::poll(tid.0) {
            Ok(None) => std::thread::sleep(PAUSE),
            Ok(Some(Change::Gone(_))) | Err(_) => return,
            // It was not dead, but had not stopped.
            Ok(Some(_)) if ptrace::detach(tid.0, 0).is_ok() => return,
            Ok(Some(_)) => {}
        }
    }
    tracing::debug!(%tid, "still held: it neither stops nor ends");
}
