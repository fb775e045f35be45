//! The pseudo-terminal that stands for the standard streams that are terminals.
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use engine::spawn::{WindowSize, open_slave, set_window_size, take_terminal, window_size};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::pty::{PtyMaster, grantpt, posix_openpt, unlockpt};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{Pid, read, tcgetpgrp, tcsetpgrp, write};

pub(super) struct Terminal {
    master: PtyMaster,
    typed: VecDeque<u8>,
    /// The one it stands for, with its settings before a keeper made it raw.
    original: Option<(OwnedFd, Termios)>,
    /// All slaves are closed: nothing to read until one is opened again.
    hung_up: bool,
}

impl Terminal {
    /// A new one, with settings and size of the one it stands for, controlling our session. Also
    /// its slave.
    pub(super) fn new(original: BorrowedFd<'_>) -> Result<(Self, OwnedFd), Errno> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let master = posix_openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        fcntl(&master, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
        let slave = open_slave(master.as_fd())?;
        let settings = tcgetattr(original).ok();
        if let Some(settings) = &settings {
            tcsetattr(&slave, SetArg::TCSANOW, settings)?;
        }
        let kept = original.try_clone_to_owned().ok().zip(settings);
        if let Ok(size) = window_size(original) {
            set_window_size(slave.as_fd(), size)?;
        }
        take_terminal(slave.as_fd())?;
        let typed = VecDeque::new();
        Ok((Self { master, typed, original: kept, hung_up: false }, slave))
    }

    /// A keeper that was killed could not do it: gives the terminal that ours stands for back, unless
    /// somebody has had it in other hands since.
    pub(super) fn give_back_original(&self) {
        let Some((original, settings)) = &self.original else { return };
        let Ok(now) = tcgetattr(original) else { return };
        let mut raw = settings.clone();
        cfmakeraw(&mut raw);
        raw.output_flags = now.output_flags;
        if now == raw && now != *settings {
            let _ = tcsetattr(original, SetArg::TCSANOW, settings);
        }
    }

    pub(super) fn polled(&self, may_read: bool) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let mut what = PollFlags::empty();
        what.set(PollFlags::POLLIN, may_read);
        what.set(PollFlags::POLLOUT, !self.typed.is_empty());
        (!what.is_empty() && !self.hung_up).then(|| (self.master.as_fd(), what))
    }

    /// Some of what was written.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let mut room = [0; 4096];
        match read(&self.master, &mut room) {
            Ok(len @ 1..) => room.get(..len).unwrap_or_default().to_vec(),
            Err(Errno::EAGAIN | Errno::EINTR) => Vec::new(),
            Ok(_) | Err(_) => {
                self.hung_up = true;
                Vec::new()
            }
        }
    }

    pub(super) fn type_in(&mut self, bytes: &[u8]) {
        self.typed.extend(bytes);
        self.type_on();
    }

    /// Passes on as much as the line discipline takes.
    pub(super) fn type_on(&mut self) {
        while let (some @ [_, ..], _) = self.typed.as_slices() {
            match write(&self.master, some) {
                Ok(len @ 1..) => drop(self.typed.drain(..len)),
                Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => return,
                Err(_) => self.typed.clear(),
            }
        }
    }

    /// Says whether that was a change, of which the foreground has been told.
    pub(super) fn resize(&self, size: WindowSize) -> Result<bool, Errno> {
        let before = window_size(self.master.as_fd())?;
        set_window_size(self.master.as_fd(), size)?;
        Ok(before != size)
    }

    /// Another open file of the slave.
    pub(super) fn slave(&self) -> Result<OwnedFd, Errno> {
        open_slave(self.master.as_fd())
    }

    /// Whom `^C` would reach.
    pub(super) fn foreground(&self) -> Option<Pid> {
        tcgetpgrp(&self.master).ok().filter(|group| group.as_raw() > 1)
    }

    /// Puts a group that was brought back into the foreground.
    pub(super) fn set_foreground(&self, group: Pid) {
        if let Ok(slave) = self.slave() {
            let _ = tcsetpgrp(slave, group);
        }
    }
}
