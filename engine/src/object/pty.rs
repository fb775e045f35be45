//! A pseudo-terminal: master and slave, its line's settings, whose controlling terminal it is.
//!
//! Its number is its name (`/dev/pts/7`), so it is kept. A slave whose master the supervisor holds is
//! known by the supervisor's key; the new one gets the line's settings, not the window's size, which
//! is the new terminal's. `/dev/tty` is the slave. Kernel: `drivers/tty/{pty,tty_io,tty_jobctrl}.c`.
//! Deliberately absent: the settings of a hung-up line, which nobody can reach.
mod job;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::libc::{self, FIONREAD, POLLHUP};
use nix::sys::stat::{Mode, fstat, major, minor, stat};

use super::{
    Build, Check, Claim, Collect, Ends, Evidence, Identity, Inode, Missing, Object, Place, View,
};
use crate::error::{Cause, Error, Obstacle, Result, kernel, kernel_io};
use crate::inventory::{End, Pid};
use crate::sys::tty::{self, queue};
use crate::sys::{net, poll_now};

pub(crate) use self::job::set_foreground;

pub(super) struct Pty;
const MASTER: End = End(0);
const SLAVE: End = End(1);

/// `TTYAUX_MAJOR` with the minors of /dev/tty and /dev/ptmx; `UNIX98_PTY_SLAVE_MAJOR` and the seven
/// after it (`include/uapi/linux/major.h`).
const AUXILIARY: u64 = 5;
const TTY: u64 = 0;
const PTMX: u64 = 2;
const SLAVES: std::ops::Range<u64> = 136..144;
/// Slaves of a terminal have inode numbers from here on (`fs/devpts/inode.c`).
const FIRST_INODE: u64 = 3;
/// A number that no inode has: a slave that has lost its master is not the next of its number.
const HUNG_UP: u64 = 1 << 63;

#[derive(Clone, PartialEq, prost::Message)]
#[expect(clippy::struct_excessive_bools, reason = "so many things a terminal is or is not")]
pub(super) struct State {
    #[prost(uint32, tag = "1")]
    index: u32,
    /// The supervisor's key, if it holds the master.
    #[prost(string, optional, tag = "2")]
    external: Option<String>,
    /// `struct termios2`.
    #[prost(bytes = "vec", tag = "3")]
    termios: Vec<u8>,
    /// `struct winsize`.
    #[prost(bytes = "vec", tag = "4")]
    winsize: Vec<u8>,
    #[prost(bool, tag = "5")]
    locked: bool,
    #[prost(bool, tag = "6")]
    packet: bool,
    #[prost(bool, tag = "7")]
    exclusive: bool,
    /// Mode, user and group of the slave's file.
    #[prost(uint32, repeated, tag = "8")]
    file: Vec<u32>,
    /// The process that leads the session whose controlling terminal it is.
    #[prost(int32, optional, tag = "9")]
    session: Option<i32>,
    /// The group in the foreground.
    #[prost(int32, optional, tag = "10")]
    pgrp: Option<i32>,
    /// The master was closed, and who has the slave finds it gone.
    #[prost(bool, tag = "11")]
    hung_up: bool,
    /// Slaves were there, and all have been closed: the master reads an error.
    #[prost(bool, tag = "12")]
    abandoned: bool,
    /// The tree has the slave open.
    #[prost(bool, tag = "13")]
    slave: bool,
    /// How many bytes wait for the master.
    #[prost(uint64, tag = "14")]
    output: u64,
    /// How many wait for the slave.
    #[prost(uint64, tag = "15")]
    input: u64,
    /// Flags of all its open files, if it is hung up: nobody can open it again.
    #[prost(int32, repeated, tag = "16")]
    flags: Vec<i32>,
    /// How many more open files of the slave there are.
    #[prost(uint32, tag = "17")]
    more_slaves: u32,
}

const OUTSIDE: Cause = Cause {
    code: "pty:outside",
    reason: "its master is held outside the tree",
    remedy: "run the program under `snapd run`, or use --shell-job",
};
const QUEUED: Cause = Cause {
    code: "pty:queued",
    reason: "more is under way in it than can be looked at",
    remedy: "let the program read them",
};
const DISCIPLINE: Cause = Cause {
    code: "pty:discipline",
    reason: "its line discipline is not that of terminals",
    remedy: "see SUPPORT.md",
};
const TAKEN: Cause = Cause {
    code: "pty:taken",
    reason: "its number is in use",
    remedy: "close the terminal that has it",
};

impl Object for Pty {
    const NAME: &'static str = "pty";
    const CAUSES: &'static [Cause] = &[OUTSIDE, QUEUED, DISCIPLINE, TAKEN];
    type State = State;

    fn claims(seen: &Evidence) -> Option<Claim> {
        let (index, instance, end) = seen.pty?;
        let number = match end {
            MASTER | SLAVE => FIRST_INODE + u64::from(index),
            _ => HUNG_UP | (FIRST_INODE + u64::from(index)),
        };
        let end = if end == MASTER { MASTER } else { SLAVE };
        Some(Claim { identity: Identity::Inode(Inode { device: instance, number }), end })
    }

    fn collect(with: &mut Collect<'_>) -> Result<State> {
        with.info.take_all("tty-index");
        let (master, slave) = (with.end(MASTER), with.end(SLAVE));
        let Some(any) = master.or(slave) else { return Ok(State::default()) };
        let slaves = with.files.iter().filter(|(end, _)| *end == SLAVE).count();
        let more_slaves = u32::try_from(slaves.saturating_sub(1)).unwrap_or(u32::MAX);
        let mut state = State { slave: slave.is_some(), more_slaves, ..State::default() };
        if let (None, Some(slave)) = (master, slave) {
            let rdev = fstat(slave).map_err(kernel("fstat"))?.st_rdev;
            if tty::get(slave, tty::TIOCGDEV) == Err(Errno::EIO) {
                state.index = index_of(rdev).unwrap_or_default();
                state.hung_up = true;
                let flags = |(_, fd): &(End, Rc<OwnedFd>)| fcntl(fd, FcntlArg::F_GETFL);
                let flags: nix::Result<Vec<_>> = with.files.iter().map(flags).collect();
                state.flags = flags.map_err(kernel("fcntl"))?;
                return Ok(state);
            }
            state.external = with.external.map(ToOwned::to_owned);
            if state.external.is_none() {
                with.obstacle(&OUTSIDE);
            }
        }
        state.read_line(any)?;
        if let Some(slave) = slave {
            let exclusive = tty::get(slave, tty::TIOCGEXCL).map_err(kernel("ioctl"))?;
            state.exclusive = exclusive != 0;
        }
        state.read_job(any, with)?;
        if let Some(master) = master {
            state.read_master(master)?;
        }
        if tty::get(any, libc::TIOCGETD) != Ok(0) {
            with.obstacle(&DISCIPLINE);
        }
        if let Some(master) = master {
            (state.output, state.input) = keep_bytes(with, master, slave)?;
        }
        Ok(state)
    }

    /// Built when its session begins, and before the leader forks anybody.
    fn place(state: &State) -> Place {
        state.session.map_or(Place::Coordinator, |leader| Place::Process(Pid(leader)))
    }

    fn check(state: &State, _: &Check) -> Vec<Missing> {
        let object = format!("/dev/pts/{}", state.index);
        let taken = state.external.is_none() && stat(&*object).is_ok();
        taken.then_some(Missing { object, cause: TAKEN }).into_iter().collect()
    }

    fn build(state: &State, with: &mut Build<'_>) -> Result<Ends> {
        if let Some(key) = &state.external {
            let damaged = || Error::Record(format!("external {key}"), None);
            let slave = with.externals.get(key).ok_or_else(damaged)?;
            let slave = slave.try_clone().map_err(kernel_io("fcntl"))?;
            state.write_line(slave.as_fd())?;
            state.set_foreground(slave.as_fd(), with.makers)?;
            return Ok(Ends::many(vec![(SLAVE, slave)]));
        }
        let master = state.allocate()?;
        tty::set(master.as_fd(), tty::TIOCSPTLCK, 0).map_err(kernel("ioctl"))?;
        state.write_line(master.as_fd())?;
        let needed = state.slave || state.session.is_some() || state.abandoned || state.hung_up;
        let slave = if needed { Some(state.open_slave(&master)?) } else { None };
        if let (Some(slave), false) = (&slave, state.hung_up) {
            state.take(slave.as_fd(), with.makers)?;
        }
        if let (true, Some(slave)) = (state.hung_up, &slave) {
            let slaves = state.flags.iter().map(|flags| Ok((SLAVE, open_again(slave, *flags)?)));
            return Ok(Ends::many(slaves.collect::<Result<_>>()?));
        }
        // By the same call each, for open(2) sets flags that it does not.
        let more: Vec<_> = (0..state.more_slaves)
            .map(|_| Ok((SLAVE, tty::peer(master.as_fd()).map_err(kernel("ioctl"))?)))
            .collect::<Result<_>>()?;
        state.put_bytes(master.as_fd(), slave.as_ref().map(AsFd::as_fd), with)?;
        state.write_master(master.as_fd())?;
        let ends = slave.filter(|_| state.slave).map(|slave| (SLAVE, slave));
        Ok(Ends::many([(MASTER, master)].into_iter().chain(ends).chain(more).collect()))
    }

    fn view(state: &State, end: End) -> View {
        match &state.external {
            Some(key) => View::of(key.clone()),
            None if end == MASTER => View::of(format!("/dev/ptmx ({})", state.index)),
            None => View::of(format!("/dev/pts/{}", state.index)),
        }
    }
}

/// Another open file of a slave.
fn open_again(slave: &OwnedFd, flags: i32) -> Result<OwnedFd> {
    let flags = OFlag::from_bits_retain(flags) & (OFlag::O_ACCMODE | OFlag::O_SYNC);
    let flags = flags | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let path = format!("/proc/self/fd/{}", slave.as_raw_fd());
    open(&*path, flags, Mode::empty()).map_err(kernel("open"))
}

/// Which pty, of which instance of devpts, and which end of it (2 if it is hung up) a terminal is.
pub(super) fn find(fd: BorrowedFd<'_>, link: &str) -> Result<Option<(u32, u64, End)>> {
    let seen = fstat(fd).map_err(kernel("fstat"))?;
    let number = (major(seen.st_rdev), minor(seen.st_rdev));
    if seen.st_mode & libc::S_IFMT != libc::S_IFCHR {
        return Ok(None);
    }
    let instance = || {
        let beside = link.rsplit_once('/').map_or("/dev", |(folder, _)| folder);
        let mounted = stat(&*format!("{beside}/pts")).or_else(|_| stat("/dev/pts"));
        mounted.map_or(seen.st_dev, |folder| folder.st_dev)
    };
    let is_devpts = link.contains("/pts/");
    let place = || if is_devpts { seen.st_dev } else { instance() };
    Ok(match number {
        (AUXILIARY, PTMX) => tty::get(fd, tty::TIOCGPTN).ok().map(|index| (index, place(), MASTER)),
        (AUXILIARY, TTY) => {
            let own = tty::get(fd, tty::TIOCGDEV).ok();
            own.and_then(|dev| index_of(decode(dev))).map(|index| (index, instance(), SLAVE))
        }
        _ => index_of(seen.st_rdev).map(|index| {
            let gone = tty::get(fd, tty::TIOCGDEV) == Err(Errno::EIO);
            (index, seen.st_dev, if gone { End(2) } else { SLAVE })
        }),
    })
}

/// Whether a device is a slave.
pub(crate) fn is_slave(rdev: u64) -> bool {
    SLAVES.contains(&major(rdev))
}

fn index_of(rdev: u64) -> Option<u32> {
    let high = is_slave(rdev).then(|| major(rdev) - SLAVES.start)?;
    u32::try_from(high << 8 | minor(rdev)).ok()
}

/// `new_encode_dev` of `include/linux/kdev_t.h` as a `dev_t`.
fn decode(dev: u32) -> u64 {
    let (high, low) = (dev >> 8 & 0xfff, dev & 0xff | dev >> 12 & 0xfff00);
    nix::sys::stat::makedev(high.into(), low.into())
}

/// Bytes under way, unless there are too many to be looked at; how many, each way.
fn keep_bytes(
    with: &mut Collect<'_>,
    master: BorrowedFd<'_>,
    slave: Option<BorrowedFd<'_>>,
) -> Result<(u64, u64)> {
    // News of the slave's for a master in packet mode would be lost.
    if poll_now(master, libc::POLLPRI).map_err(kernel("poll"))? {
        with.obstacle(&QUEUED);
        return Ok((0, 0));
    }
    for end in [Some(master), slave].into_iter().flatten() {
        if net::count(end, FIONREAD).map_err(kernel("ioctl"))? > queue::MOST {
            with.obstacle(&QUEUED);
            return Ok((0, 0));
        }
    }
    let seen = queue::look(master, slave).map_err(kernel("ioctl"))?;
    let lengths = (seen.output.len() as u64, seen.input.len() as u64);
    with.keep(MASTER, seen.output);
    with.keep(SLAVE, seen.input);
    Ok(lengths)
}

impl State {
    fn put_bytes(
        &self,
        master: BorrowedFd<'_>,
        slave: Option<BorrowedFd<'_>>,
        with: &Build<'_>,
    ) -> Result<()> {
        queue::put_output(master, &with.kept(MASTER, self.output)?).map_err(kernel("ioctl"))?;
        let input = with.kept(SLAVE, self.input)?;
        match (slave, self.termios.as_slice().try_into()) {
            (Some(slave), Ok(termios)) if !input.is_empty() => {
                queue::put_input(slave, termios, &input).map_err(kernel("ioctl"))
            }
            _ => Ok(()),
        }
    }

    fn read_line(&mut self, fd: BorrowedFd<'_>) -> Result<()> {
        self.termios = tty::termios(fd).map_err(kernel("ioctl"))?.to_vec();
        if self.external.is_none() {
            self.winsize = tty::window(fd).map_err(kernel("ioctl"))?.to_vec();
        }
        Ok(())
    }

    fn write_line(&self, fd: BorrowedFd<'_>) -> Result<()> {
        if let Ok(termios) = self.termios.as_slice().try_into() {
            tty::set_termios(fd, termios).map_err(kernel("ioctl"))?;
        }
        if let Ok(winsize) = self.winsize.as_slice().try_into() {
            tty::set_window(fd, winsize).map_err(kernel("ioctl"))?;
        }
        Ok(())
    }

    fn read_master(&mut self, master: BorrowedFd<'_>) -> Result<()> {
        let flag = |request| tty::get(master, request).map_err(kernel("ioctl"));
        self.index = flag(tty::TIOCGPTN)?;
        self.locked = flag(tty::TIOCGPTLCK)? != 0;
        self.packet = flag(tty::TIOCGPKT)? != 0;
        self.abandoned = !self.slave && poll_now(master, POLLHUP).map_err(kernel("poll"))?;
        if let Ok(file) = stat(&*format!("/dev/pts/{}", self.index)) {
            self.file = vec![file.st_mode & 0o7777, file.st_uid, file.st_gid];
        }
        Ok(())
    }

    fn write_master(&self, master: BorrowedFd<'_>) -> Result<()> {
        if self.packet {
            tty::set(master, tty::TIOCPKT, 1).map_err(kernel("ioctl"))?;
        }
        if self.locked {
            tty::set(master, tty::TIOCSPTLCK, 1).map_err(kernel("ioctl"))?;
        }
        Ok(())
    }

    fn open_slave(&self, master: &OwnedFd) -> Result<OwnedFd> {
        let slave = tty::peer(master.as_fd()).map_err(kernel("ioctl"))?;
        if let [mode, uid, gid] = self.file[..] {
            std::os::unix::fs::fchown(&slave, Some(uid), Some(gid)).map_err(kernel_io("fchown"))?;
            let mode = Mode::from_bits_truncate(mode);
            nix::sys::stat::fchmod(&slave, mode).map_err(kernel("fchmod"))?;
        }
        if self.exclusive {
            tty::exclude(slave.as_fd()).map_err(kernel("ioctl"))?;
        }
        Ok(slave)
    }

    /// A master with our number: the kernel gives the lowest that is free, so those below it are
    /// taken for the moment.
    fn allocate(&self) -> Result<OwnedFd> {
        let mut below = Vec::new();
        loop {
            let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
            let master = open("/dev/ptmx", flags, Mode::empty()).map_err(kernel("open"))?;
            let index = tty::get(master.as_fd(), tty::TIOCGPTN).map_err(kernel("ioctl"))?;
            if index == self.index {
                return Ok(master);
            }
            if index > self.index {
                let object = format!("/dev/pts/{}", self.index);
                return Err(Error::Refused(vec![Obstacle { pid: None, object, cause: TAKEN }]));
            }
            below.push(master);
        }
    }
}

#[cfg(test)]
mod tests;
