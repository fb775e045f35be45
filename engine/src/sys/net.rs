//! Sockets as the kernel has them: options as bytes, addresses as bytes, what nix does not know.
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::Result;
use nix::errno::Errno;
use nix::libc::{self, c_int, socklen_t};

/// `SIOCUNIXFILE` of `include/uapi/linux/un.h`, since 4.11.
const SIOCUNIXFILE: libc::Ioctl = 0x89e0;

/// `SIOCGSKNS` of `include/uapi/linux/sockios.h`, since 4.10.
const SIOCGSKNS: libc::Ioctl = 0x894c;

/// socket(2) of any family.
pub(crate) fn socket(domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = Errno::result(unsafe { libc::socket(domain, kind, protocol) })?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// socketpair(2) of Unix sockets.
pub(crate) fn pair(kind: i32) -> Result<(OwnedFd, OwnedFd)> {
    let (mut fds, kind) = ([-1; 2], kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK);
    // SAFETY: the kernel writes two numbers, to `fds`.
    Errno::result(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) })?;
    // SAFETY: the kernel has just made both for us.
    let [first, second] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    Ok((first, second))
}

/// getsockopt(2): the value's bytes, at most `len`.
pub(crate) fn get(fd: BorrowedFd<'_>, level: i32, name: i32, len: usize) -> Result<Vec<u8>> {
    let mut value = vec![0u8; len];
    let mut room = socklen_t::try_from(len).map_err(|_| Errno::EINVAL)?;
    let at = value.as_mut_ptr().cast();
    // SAFETY: `at` has `room` bytes, and the kernel writes no more; `fd` is open.
    Errno::result(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, at, &raw mut room) })?;
    value.truncate(usize::try_from(room).unwrap_or(0));
    Ok(value)
}

/// getsockopt(2) of a value that is asked with part of itself.
pub(crate) fn exchange(
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    mut value: Vec<u8>,
) -> Result<Vec<u8>> {
    let mut room = socklen_t::try_from(value.len()).map_err(|_| Errno::EINVAL)?;
    let at = value.as_mut_ptr().cast();
    // SAFETY: `at` has `room` bytes, all initialised, and the kernel writes no more; `fd` is open.
    Errno::result(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, at, &raw mut room) })?;
    value.truncate(usize::try_from(room).unwrap_or(0));
    Ok(value)
}

/// `SO_GET_FILTER`, whose length counts instructions of eight bytes.
pub(crate) fn get_filter(fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let mut count: socklen_t = 0;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_GET_FILTER);
    let none = std::ptr::null_mut();
    // SAFETY: with a count of zero the kernel only says how many there are.
    Errno::result(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, none, &raw mut count) })?;
    let len = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
    let mut code = vec![0u8; len * 8];
    if count > 0 {
        let at = code.as_mut_ptr().cast();
        // SAFETY: `at` has room for `count` instructions.
        Errno::result(unsafe {
            libc::getsockopt(fd.as_raw_fd(), level, name, at, &raw mut count)
        })?;
    }
    Ok(code)
}

/// `SO_ATTACH_FILTER` of classic BPF code.
pub(crate) fn attach_filter(fd: BorrowedFd<'_>, code: &[u8]) -> Result<()> {
    let mut filter: Vec<libc::sock_filter> = Vec::new();
    for one in code.as_chunks::<8>().0 {
        let [a, b, jt, jf, k @ ..] = *one;
        let code = u16::from_ne_bytes([a, b]);
        filter.push(libc::sock_filter { code, jt, jf, k: u32::from_ne_bytes(k) });
    }
    let len = u16::try_from(filter.len()).map_err(|_| Errno::EINVAL)?;
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    let size = socklen_t::try_from(size_of_val(&program)).map_err(|_| Errno::EINVAL)?;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
    let at = (&raw const program).cast();
    // SAFETY: `program` and the `len` instructions it points to outlive the call.
    Errno::result(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, at, size) }).map(drop)
}

/// An option that is an `int`.
pub(crate) fn get_int(fd: BorrowedFd<'_>, level: i32, name: i32) -> Result<i32> {
    let value = get(fd, level, name, size_of::<c_int>())?;
    value.first_chunk().map(|int| i32::from_ne_bytes(*int)).ok_or(Errno::EBADMSG)
}

/// setsockopt(2) of plain bytes. Options whose value holds pointers have functions of their own.
pub(crate) fn set(fd: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> Result<()> {
    let len = socklen_t::try_from(value.len()).map_err(|_| Errno::EINVAL)?;
    let at = value.as_ptr().cast();
    // SAFETY: the kernel reads at most `len` bytes from `at`; `fd` is open.
    Errno::result(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, at, len) }).map(drop)
}

/// `FIONREAD` (bytes waiting) or `TIOCOUTQ` (bytes sent but unread) and other ioctls that write one int.
pub(crate) fn count(fd: BorrowedFd<'_>, what: libc::Ioctl) -> Result<usize> {
    let mut len: c_int = 0;
    // SAFETY: `fd` is open for the length of the call; these requests write one int, to `len`.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), what, &raw mut len) })?;
    usize::try_from(len).map_err(|_| Errno::EOVERFLOW)
}

/// The file a Unix socket is bound to, as if opened with `O_PATH`.
pub(crate) fn unix_file(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let file = Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), SIOCUNIXFILE) })?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}

/// The network namespace of a socket.
pub(crate) fn namespace(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let namespace = Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), SIOCGSKNS) })?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(namespace) })
}

/// What bind(2), connect(2), getsockname(2) and getpeername(2) have in common: an address as bytes.
pub(crate) type Address = Vec<u8>;

/// bind(2).
pub(crate) fn bind(fd: BorrowedFd<'_>, to: &[u8]) -> Result<()> {
    let len = socklen_t::try_from(to.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `to` is `len` bytes long, and the kernel reads no more.
    Errno::result(unsafe { libc::bind(fd.as_raw_fd(), to.as_ptr().cast(), len) }).map(drop)
}

/// connect(2).
pub(crate) fn connect(fd: BorrowedFd<'_>, to: &[u8]) -> Result<()> {
    let len = socklen_t::try_from(to.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `to` is `len` bytes long, and the kernel reads no more.
    Errno::result(unsafe { libc::connect(fd.as_raw_fd(), to.as_ptr().cast(), len) }).map(drop)
}

/// listen(2).
pub(crate) fn listen(fd: BorrowedFd<'_>, backlog: i32) -> Result<()> {
    // SAFETY: takes no pointer.
    Errno::result(unsafe { libc::listen(fd.as_raw_fd(), backlog) }).map(drop)
}

/// accept4(2) of a connection that is there already.
pub(crate) fn accept(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    let (none, flags) = (std::ptr::null_mut(), libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK);
    // SAFETY: without an address no length is looked at either.
    let made = unsafe { libc::accept4(fd.as_raw_fd(), none, std::ptr::null_mut(), flags) };
    let made = Errno::result(made)?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// shutdown(2).
pub(crate) fn shutdown(fd: BorrowedFd<'_>, how: i32) -> Result<()> {
    // SAFETY: takes no pointer.
    Errno::result(unsafe { libc::shutdown(fd.as_raw_fd(), how) }).map(drop)
}

/// getsockname(2).
pub(crate) fn name(fd: BorrowedFd<'_>) -> Result<Address> {
    address(|at, len| {
        // SAFETY: `at` has `len` bytes, and the kernel writes no more.
        unsafe { libc::getsockname(fd.as_raw_fd(), at, len) }
    })
}

/// getpeername(2).
pub(crate) fn peer_name(fd: BorrowedFd<'_>) -> Result<Address> {
    address(|at, len| {
        // SAFETY: `at` has `len` bytes, and the kernel writes no more.
        unsafe { libc::getpeername(fd.as_raw_fd(), at, len) }
    })
}

fn address(ask: impl FnOnce(*mut libc::sockaddr, *mut socklen_t) -> c_int) -> Result<Address> {
    let mut room = vec![0u8; size_of::<libc::sockaddr_storage>()];
    let mut len = socklen_t::try_from(room.len()).map_err(|_| Errno::EINVAL)?;
    Errno::result(ask(room.as_mut_ptr().cast(), &raw mut len))?;
    room.truncate(usize::try_from(len).unwrap_or(0));
    Ok(room)
}
