//! Terminals: the ioctl(2)s that tell what one is and make another like it (`ioctl_tty(2)`).
pub(crate) mod queue;

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::Result;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc::{self, Ioctl, c_int};

// `include/uapi/asm-generic/ioctls.h`; x86-64 and arm64 have the same.
/// Number of a pty; asked of its master.
pub(crate) const TIOCGPTN: Ioctl = 0x8004_5430;
/// Device number of the terminal; of a master: its slave's.
pub(crate) const TIOCGDEV: Ioctl = 0x8004_5432;
/// Packet mode, told (3.8+) and set.
pub(crate) const TIOCGPKT: Ioctl = 0x8004_5438;
pub(crate) const TIOCPKT: Ioctl = 0x5420;
/// The slave cannot be opened yet, told (3.8+) and set.
pub(crate) const TIOCGPTLCK: Ioctl = 0x8004_5439;
pub(crate) const TIOCSPTLCK: Ioctl = 0x4004_5431;
/// Nobody else may open it (3.8+).
pub(crate) const TIOCGEXCL: Ioctl = 0x8004_5440;
const TIOCGPTPEER: Ioctl = 0x5441;
const TCGETS2: Ioctl = 0x802c_542a;
const TCSETS2: Ioctl = 0x402c_542b;

/// `struct termios2` of `include/uapi/asm-generic/termbits.h`, as bytes.
pub(crate) type Termios = [u8; 44];
/// `struct winsize`, likewise.
pub(crate) type WindowSize = [u8; 8];

/// One of the requests that write an `int`.
pub(crate) fn get(fd: BorrowedFd<'_>, request: Ioctl) -> Result<u32> {
    let mut number: c_int = 0;
    // SAFETY: `fd` is open; the requests of this module that come here write one int.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw mut number) })?;
    Ok(number.cast_unsigned())
}

/// One of the requests that read an `int`.
pub(crate) fn set(fd: BorrowedFd<'_>, request: Ioctl, number: i32) -> Result<()> {
    // SAFETY: `fd` is open; the requests of this module that come here read one int.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw const number) }).map(drop)
}

/// Settings of the line; asked of a master: of its slave.
pub(crate) fn termios(fd: BorrowedFd<'_>) -> Result<Termios> {
    let mut bytes = [0; size_of::<Termios>()];
    // SAFETY: `fd` is open; the kernel writes one struct termios2, which is this long.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), TCGETS2, bytes.as_mut_ptr()) })?;
    Ok(bytes)
}

/// Changes them at once.
pub(crate) fn set_termios(fd: BorrowedFd<'_>, bytes: &Termios) -> Result<()> {
    // SAFETY: `fd` is open; the kernel reads one struct termios2, which is this long.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), TCSETS2, bytes.as_ptr()) }).map(drop)
}

/// Rows and columns.
pub(crate) fn window(fd: BorrowedFd<'_>) -> Result<WindowSize> {
    let mut bytes = [0; size_of::<WindowSize>()];
    // SAFETY: `fd` is open; the kernel writes one struct winsize, which is this long.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, bytes.as_mut_ptr()) })?;
    Ok(bytes)
}

/// Changes them; the foreground is told by `SIGWINCH`.
pub(crate) fn set_window(fd: BorrowedFd<'_>, bytes: &WindowSize) -> Result<()> {
    // SAFETY: `fd` is open; the kernel reads one struct winsize, which is this long.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, bytes.as_ptr()) })
        .map(drop)
}

/// `TIOCEXCL`.
pub(crate) fn exclude(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: `fd` is open, and the request takes no argument.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCEXCL) }).map(drop)
}

/// Opens the slave of a master, wherever its file system is mounted (4.13+). Close-on-exec is set
/// afterwards: this request would note it in the open file too, and fdinfo show it of all descriptors.
pub(crate) fn peer(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK;
    // SAFETY: `master` is open, and the argument is a number.
    let fd = Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), TIOCGPTPEER, flags) })?;
    // SAFETY: the kernel has just made it for us.
    let peer = unsafe { OwnedFd::from_raw_fd(fd) };
    fcntl(&peer, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(peer)
}
