//! Bytes under way in a pseudo-terminal. Nobody can look at them; but whoever takes them can put
//! them back by `TIOCSTI`, as long as nobody else reads or writes meanwhile: the tree stands still.
//!
//! It is done by a child, which finishes whatever becomes of us. Kernel: `drivers/tty/n_tty.c`.
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::Result;
use nix::errno::Errno;
use nix::libc::{self, FIONREAD, ICANON};

use super::super::net;
use super::{TIOCGPKT, TIOCPKT, Termios, get, set, set_termios, termios};

/// A line discipline keeps 4,096 bytes, and asks for no more when it has all but 128; what is beyond
/// that waits in the driver, and could not be put back.
pub(crate) const MOST: usize = 3800;

/// What waits for the reader of the master, and of the slave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct UnderWay {
    pub(crate) output: Vec<u8>,
    pub(crate) input: Vec<u8>,
}

/// Takes all, and puts it back.
pub(crate) fn look(master: BorrowedFd<'_>, slave: Option<BorrowedFd<'_>>) -> Result<UnderWay> {
    let (mut from, to) = std::io::pipe().map_err(|_| Errno::EMFILE)?;
    // SAFETY: the child makes system calls and allocates (glibc and musl keep the allocator usable
    // in a child), touches no lock of ours, and leaves by _exit.
    let child = match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => {
            drop(from);
            let code = i32::from(report(master, slave, to).is_err());
            // SAFETY: ends the child without running what belongs to the parent.
            unsafe { libc::_exit(code) }
        }
        nix::unistd::ForkResult::Parent { child } => child,
    };
    drop(to);
    let mut told = Vec::new();
    from.read_to_end(&mut told).map_err(|_| Errno::EIO)?;
    match nix::sys::wait::waitpid(child, None) {
        Ok(nix::sys::wait::WaitStatus::Exited(_, 0)) | Err(Errno::ECHILD) => {}
        _ => return Err(Errno::EIO),
    }
    let (len, told) = told.split_first_chunk::<8>().ok_or(Errno::EIO)?;
    let len = usize::try_from(u64::from_ne_bytes(*len)).map_err(|_| Errno::EIO)?;
    let (output, input) = told.split_at_checked(len).ok_or(Errno::EIO)?;
    Ok(UnderWay { output: output.to_vec(), input: input.to_vec() })
}

/// The child. It tells nobody before everything is back. Packet mode would put a byte of its own before
/// each read, and tell of what is done to the slave.
fn report(
    master: BorrowedFd<'_>,
    slave: Option<BorrowedFd<'_>>,
    mut to: std::io::PipeWriter,
) -> Result<()> {
    let packets = get(master, TIOCGPKT)?.cast_signed();
    set(master, TIOCPKT, 0)?;
    let output = take(master).and_then(|bytes| insert(master, &bytes).map(|()| bytes));
    let input = slave.map(input).transpose();
    set(master, TIOCPKT, packets)?;
    let (output, input) = (output?, input?.unwrap_or_default());
    let told = [&(output.len() as u64).to_ne_bytes()[..], &output, &input].concat();
    to.write_all(&told).map_err(|_| Errno::EPIPE)
}

/// Lines are taken as the bytes they are made of, the last one unfinished.
fn input(slave: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let before = termios(slave)?;
    let mut raw = before;
    flags(&mut raw, LOCAL, |local| local & !(ICANON | libc::ECHO));
    set_termios(slave, &raw)?;
    let taken = take(slave);
    let back = taken.and_then(|bytes| put_input(slave, &before, &bytes).map(|()| bytes));
    set_termios(slave, &before)?;
    back
}

/// Puts what waits for the reader of a slave, whose settings are to be `wanted`.
pub(crate) fn put_input(slave: BorrowedFd<'_>, wanted: &Termios, bytes: &[u8]) -> Result<()> {
    let mut quiet = *wanted;
    flags(&mut quiet, INPUT, |_| 0); // What these do has been done to the bytes.
    flags(&mut quiet, LOCAL, |local| local & ICANON);
    for special in [libc::VERASE, libc::VKILL] {
        character(&mut quiet, special, 0);
    }
    set_termios(slave, &quiet)?;
    let lines = word(wanted, LOCAL) & ICANON != 0;
    let end = wanted.get(CHARACTERS + libc::VEOF).copied().unwrap_or(0);
    // The end of input is kept as a zero.
    let bytes: Vec<_> =
        bytes.iter().map(|byte| if lines && *byte == 0 { end } else { *byte }).collect();
    insert(slave, &bytes)?;
    set_termios(slave, wanted)
}

/// Puts what waits for the reader of a master.
pub(crate) fn put_output(master: BorrowedFd<'_>, bytes: &[u8]) -> Result<()> {
    insert(master, bytes)
}

fn take(fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let waiting = net::count(fd, FIONREAD)?;
        if waiting == 0 || all.len() > MOST {
            return Ok(all);
        }
        let mut room = vec![0; waiting];
        let len = nix::unistd::read(fd, &mut room)?;
        all.extend(room.iter().take(len));
    }
}

fn insert(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<()> {
    for byte in bytes {
        // SAFETY: `fd` is open, and the kernel reads one byte.
        Errno::result(unsafe {
            libc::ioctl(fd.as_raw_fd(), libc::TIOCSTI, std::ptr::from_ref(byte))
        })?;
    }
    Ok(())
}

// Offsets in `struct termios2`: input, output, control and local flags, line, characters.
const INPUT: usize = 0;
const LOCAL: usize = 12;
const CHARACTERS: usize = 17;

fn word(termios: &Termios, at: usize) -> u32 {
    let word = termios.get(at..).and_then(<[u8]>::first_chunk);
    word.map_or(0, |word| u32::from_ne_bytes(*word))
}

fn flags(termios: &mut Termios, at: usize, change: impl FnOnce(u32) -> u32) {
    let changed = change(word(termios, at)).to_ne_bytes();
    if let Some(place) = termios.get_mut(at..at + changed.len()) {
        place.copy_from_slice(&changed);
    }
}

fn character(termios: &mut Termios, which: usize, byte: u8) {
    if let Some(place) = termios.get_mut(CHARACTERS + which) {
        *place = byte;
    }
}
