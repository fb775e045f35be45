//! Whose controlling terminal a pty is, and who is in its foreground.
//!
//! The kernel tells that to the terminal's own session only, and lets only that one change it: so
//! /proc is read, and members of the session are asked to set it. Kernel: `drivers/tty/tty_jobctrl.c`.
use std::fs;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::libc::{TIOCSCTTY, TIOCSPGRP};
use prost::Message;

use super::super::socket::makers;
use super::super::{Collect, Object};
use super::{Pty, State};
use crate::error::{Error, Result, kernel, kernel_io};
use crate::inventory::Pid;
use crate::procfs;
use crate::remote::{Arg, Makers};
use crate::sys::tty;

/// Sets the foreground group of a terminal whose session has it, once there are groups.
pub(crate) fn set_foreground(
    record: &[u8],
    terminal: BorrowedFd<'_>,
    makers: &mut dyn Makers,
) -> Result<()> {
    let state = State::decode(record);
    let state = state.map_err(|source| Error::Record(Pty::NAME.into(), Some(source)))?;
    state.set_foreground(terminal, makers)
}

impl State {
    /// Session and foreground group, as the processes that have this terminal tell: it tells them to
    /// its own session only.
    pub(super) fn read_job(&mut self, fd: BorrowedFd<'_>, with: &Collect<'_>) -> Result<()> {
        let own = i64::from(tty::get(fd, tty::TIOCGDEV).map_err(kernel("ioctl"))?);
        for entry in fs::read_dir("/proc").map_err(kernel_io("readdir"))?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let Some(member) = with.tree.member(pid) else { continue };
            let Ok(text) = procfs::text(format!("/proc/{member}/stat")) else { continue };
            let Some((session, tty, pgrp)) = job_of(&text) else { continue };
            if i64::from(tty) == own {
                self.session = with.tree.member(session).map(|leader| leader.0);
                self.pgrp = (pgrp > 0).then_some(pgrp);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Only a leader takes a terminal, and whom it forks afterwards has it too. A session led from
    /// outside has it already.
    pub(super) fn take(&self, slave: BorrowedFd<'_>, makers: &mut dyn Makers) -> Result<()> {
        let take = (TIOCSCTTY, Arg::Value(0));
        self.session.map_or(Ok(()), |leader| makers::ioctl(makers, Pid(leader), slave, take))
    }

    /// Any process of the session may say who is in the foreground: those that stand here have
    /// `SIGTTOU` blocked.
    pub(super) fn set_foreground(
        &self,
        terminal: BorrowedFd<'_>,
        makers: &mut dyn Makers,
    ) -> Result<()> {
        let Some(group) = self.pgrp else { return Ok(()) };
        let speaker = Pid(self.session.unwrap_or(group));
        let group = Arg::In(group.to_ne_bytes().to_vec());
        match makers::ioctl(makers, speaker, terminal, (TIOCSPGRP, group)) {
            // The group has ended since, or its leader has: the shell will choose another.
            Err(Error::Kernel(_, Errno::ESRCH | Errno::EPERM | Errno::ENOTTY)) => Ok(()),
            done => done,
        }
    }
}

/// Session, terminal and its foreground group, of `/proc/PID/stat`.
fn job_of(stat: &str) -> Option<(i32, i32, i32)> {
    let mut words = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(3);
    let mut number = || words.next()?.parse().ok();
    Some((number()?, number()?, number()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_stat_are_found_behind_any_name() {
        let text = "7 (a) b (c) S 1 7 7 34816 9 4194304 1 2";
        assert_eq!(job_of(text), Some((7, 34816, 9)));
    }
}
