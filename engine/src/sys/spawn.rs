//! Starting processes as a shell's job or into a chosen pid, for the supervisor's shim.
//!
//! `std::process` has neither clone3(2) with `set_tid`, nor a foreground group, nor descriptors at
//! chosen numbers. The child makes raw system calls only, on memory prepared before it was born.
//! Kernel: `kernel/fork.c`, `kernel/pid.c` (`alloc_pid`), `include/uapi/linux/sched.h`.
use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use nix::unistd::{Pid, pipe2, read};

type Result<T, E = Errno> = std::result::Result<T, E>;

/// `struct clone_args`, `include/uapi/linux/sched.h`, up to `CLONE_ARGS_SIZE_VER1`.
#[repr(C)]
#[derive(Debug, Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
}
const _: () = assert!(size_of::<CloneArgs>() == 80);

/// Who a program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Real, effective and saved.
    pub user: u32,
    /// Likewise.
    pub group: u32,
    /// Supplementary.
    pub groups: Vec<u32>,
}

/// A program to be started.
#[derive(Debug)]
pub struct Program<'a> {
    /// Paths to try, as execvp(3) does with `PATH`.
    pub paths: Vec<CString>,
    /// `argv`, the program's name first.
    pub args: Vec<CString>,
    /// `NAME=value`.
    pub env: Vec<CString>,
    /// Working directory.
    pub cwd: Option<CString>,
    /// File mode creation mask.
    pub umask: Option<u32>,
    /// What it finds under which number. Nothing else is inherited.
    pub fds: Vec<(BorrowedFd<'a>, RawFd)>,
    /// The pid it gets, in the caller's namespace for children.
    pub pid: Option<i32>,
    /// A process group of its own...
    pub own_group: bool,
    /// ...in the foreground of this terminal, which must be the caller's controlling one.
    pub foreground_of: Option<BorrowedFd<'a>>,
    /// Who it runs as, if not as the caller.
    pub credentials: Option<Credentials>,
}

/// Why there is no such process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpawnError {
    /// The kernel made no process.
    #[error("clone3")]
    Clone(#[source] Errno),
    /// The new process could not be prepared: this call failed in it.
    #[error("{0}")]
    Prepare(&'static str, #[source] Errno),
    /// The program could not be executed: 127 if not found, else 126.
    #[error("execve")]
    Execute(#[source] Errno),
}

/// The steps in the child, in the order of their codes on the pipe.
const STEPS: [&str; 6] = ["dup2", "chdir", "setgroups", "setresgid", "setresuid", "execve"];
const EXECUTE: u8 = 5;

/// Null-terminated, as execve(2) wants it.
struct Vector(#[allow(dead_code)] Vec<CString>, Vec<*const libc::c_char>);

impl Vector {
    fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
        Self(strings, pointers)
    }
}

/// Starts it; returns once it is executing.
pub fn spawn(program: &Program<'_>) -> Result<Pid, SpawnError> {
    let (told, tell) = pipe2(OFlag::O_CLOEXEC).map_err(SpawnError::Clone)?;
    let child = Child::new(program, tell.as_raw_fd());
    let set_tid = program.pid.unwrap_or(0);
    let args = CloneArgs {
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        set_tid: (&raw const set_tid).expose_provenance() as u64,
        set_tid_size: u64::from(program.pid.is_some()),
        ..CloneArgs::default()
    };
    let args = if program.pid.is_some() { args } else { CloneArgs { set_tid: 0, ..args } };
    // SAFETY: as fork(2): no CLONE_VM, no new stack; both structures outlive the call. The child
    // only runs `Child::run`, which makes system calls on memory prepared here and never returns.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match Errno::result(pid).map_err(SpawnError::Clone)? {
        0 => child.run(),
        pid => {
            drop(tell);
            let pid = Pid::from_raw(i32::try_from(pid).unwrap_or(-1));
            outcome(&told).inspect_err(|_| reap(pid)).map(|()| pid)
        }
    }
}

/// Takes away a child that never became a program.
fn reap(pid: Pid) {
    let _ = nix::sys::wait::waitpid(pid, None);
}

/// Reads what the child had to say: nothing, if its execve(2) closed the pipe.
fn outcome(told: &OwnedFd) -> Result<(), SpawnError> {
    let mut said = [0u8; 5];
    let len = loop {
        match read(told, &mut said) {
            Err(Errno::EINTR) => {}
            other => break other.unwrap_or(0),
        }
    };
    if len < said.len() {
        return Ok(());
    }
    let [step, errno @ ..] = said;
    let errno = Errno::from_raw(i32::from_ne_bytes(errno));
    match STEPS.get(usize::from(step)) {
        Some(name) if step != EXECUTE => Err(SpawnError::Prepare(name, errno)),
        _ => Err(SpawnError::Execute(errno)),
    }
}

/// All that the child needs, made before it is born: it must not allocate.
struct Child {
    paths: Vec<CString>,
    args: Vector,
    shell_args: Vec<Vector>,
    env: Vector,
    cwd: Option<CString>,
    umask: Option<u32>,
    fds: Vec<(RawFd, RawFd)>,
    lifted: Vec<RawFd>,
    own_group: bool,
    terminal: Option<RawFd>,
    credentials: Option<Credentials>,
    tell: RawFd,
}

impl Child {
    fn new(program: &Program<'_>, tell: RawFd) -> Self {
        let shell = |path: &CString| {
            let rest = program.args.iter().skip(1).cloned();
            Vector::new([c"/bin/sh".to_owned(), path.clone()].into_iter().chain(rest).collect())
        };
        Self {
            shell_args: program.paths.iter().map(shell).collect(),
            paths: program.paths.clone(),
            args: Vector::new(program.args.clone()),
            env: Vector::new(program.env.clone()),
            cwd: program.cwd.clone(),
            umask: program.umask,
            fds: program.fds.iter().map(|(from, to)| (from.as_raw_fd(), *to)).collect(),
            lifted: vec![-1; program.fds.len()],
            own_group: program.own_group,
            terminal: program.foreground_of.map(|fd| fd.as_raw_fd()),
            credentials: program.credentials.clone(),
            tell,
        }
    }

    fn run(mut self) -> ! {
        let (step, errno) = match self.prepare() {
            Ok(()) => (EXECUTE, self.execute()),
            Err(failed) => failed,
        };
        let mut said = [step, 0, 0, 0, 0];
        for (to, from) in said.iter_mut().skip(1).zip((errno as i32).to_ne_bytes()) {
            *to = from;
        }
        // SAFETY: `said` is valid for its length; the pipe is ours.
        unsafe { libc::write(self.tell, said.as_ptr().cast(), said.len()) };
        // SAFETY: ends this process without running anything that belongs to the parent.
        unsafe { libc::_exit(127) }
    }

    fn prepare(&mut self) -> Result<(), (u8, Errno)> {
        if self.own_group {
            // SAFETY: takes no pointers.
            unsafe { libc::setpgid(0, 0) };
        }
        if let Some(terminal) = self.terminal {
            // Signals are still blocked (see `reset_signals`), so no SIGTTOU stops us here.
            // SAFETY: takes no pointers.
            let group = unsafe { libc::getpgrp() };
            // SAFETY: likewise.
            unsafe { libc::tcsetpgrp(terminal, group) };
        }
        self.place_fds().map_err(|errno| (0, errno))?;
        if let Some(cwd) = &self.cwd {
            // SAFETY: a string that lives as long as we do.
            checked(i64::from(unsafe { libc::chdir(cwd.as_ptr()) })).map_err(|errno| (1, errno))?;
        }
        if let Some(umask) = self.umask {
            // SAFETY: takes no pointers.
            unsafe { libc::umask(umask) };
        }
        self.take_credentials()?;
        reset_signals();
        Ok(())
    }

    /// First out of each other's way, then to their numbers; all others close at execve(2).
    fn place_fds(&mut self) -> Result<()> {
        let above = self.fds.iter().map(|(_, to)| to + 1).max().unwrap_or(3).max(self.tell + 1);
        for ((from, _), lifted) in self.fds.iter().zip(&mut self.lifted) {
            // SAFETY: F_DUPFD_CLOEXEC takes no pointer.
            *lifted = unsafe { libc::fcntl(*from, libc::F_DUPFD_CLOEXEC, above) };
            checked(i64::from(*lifted))?;
        }
        // SAFETY: F_DUPFD_CLOEXEC takes no pointer.
        self.tell = unsafe { libc::fcntl(self.tell, libc::F_DUPFD_CLOEXEC, above) };
        // SAFETY: takes no pointers; marks descriptors, closes none.
        let marked =
            unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        checked(marked)?;
        for ((_, to), lifted) in self.fds.iter().zip(&self.lifted) {
            // SAFETY: takes no pointers; whatever was at `to` in this child is not needed any more.
            checked(i64::from(unsafe { libc::dup2(*lifted, *to) }))?;
        }
        Ok(())
    }

    fn take_credentials(&self) -> Result<(), (u8, Errno)> {
        let Some(who) = &self.credentials else { return Ok(()) };
        // The system calls, not glibc's wrappers, which tell all threads of a parent we left.
        let (len, list) = (who.groups.len(), who.groups.as_ptr());
        // SAFETY: `list` is valid for `len` entries.
        let done = unsafe { libc::syscall(libc::SYS_setgroups, len, list) };
        checked(done).map_err(|errno| (2, errno))?;
        let gid = who.group;
        // SAFETY: takes no pointers.
        let done = unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) };
        checked(done).map_err(|errno| (3, errno))?;
        let uid = who.user;
        // SAFETY: takes no pointers.
        let done = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
        checked(done).map_err(|errno| (4, errno))
    }

    /// As execvp(3): the first that can be executed; a script without a first line goes to the
    /// shell; that permission was denied is said rather than that nothing was found.
    fn execute(&self) -> Errno {
        let mut said = Errno::ENOENT;
        for (path, shell) in self.paths.iter().zip(&self.shell_args) {
            // SAFETY: all three are null-terminated and live as long as we do.
            unsafe { libc::execve(path.as_ptr(), self.args.1.as_ptr(), self.env.1.as_ptr()) };
            match Errno::last() {
                Errno::ENOEXEC => {
                    let sh = c"/bin/sh".as_ptr();
                    // SAFETY: likewise.
                    unsafe { libc::execve(sh, shell.1.as_ptr(), self.env.1.as_ptr()) };
                    return Errno::last();
                }
                Errno::ENOENT | Errno::ENOTDIR => {}
                Errno::EACCES => said = Errno::EACCES,
                other => return other,
            }
        }
        said
    }
}

/// Nothing blocked, and SIGPIPE, which Rust's runtime ignores, as it was.
fn reset_signals() {
    // SAFETY: restores the default action; no handler is involved.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    super::signals::block(0).unwrap_or_default(); // It cannot fail with a set of this size.
}

fn checked(result: i64) -> Result<()> {
    if result == -1 { Err(Errno::last()) } else { Ok(()) }
}

/// Which side of [`split`] we are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that called; the other one's pid.
    Parent(Pid),
    /// The new one.
    Child,
}

/// fork(2), which is only sound while there is one thread: refused with `EBUSY` otherwise.
pub fn split() -> Result<Side> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    if threads != 1 {
        return Err(Errno::EBUSY);
    }
    // SAFETY: this is the only thread, so no lock is held by one that the child lacks.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(Side::Parent(child)),
        nix::unistd::ForkResult::Child => Ok(Side::Child),
    }
}

/// `TIOCSCTTY`: makes this terminal the controlling one of the session that we lead.
pub fn take_terminal(slave: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the argument is a number, no pointer.
    Errno::result(unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// `TIOCGPTPEER`: opens the slave of this pseudo-terminal, wherever devpts is mounted.
///
/// Not with `O_CLOEXEC`: here the kernel keeps that among the flags of the open file, where fdinfo
/// shows it for every descriptor of it, also for those that are not closed on exec.
pub fn open_slave(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY;
    // SAFETY: the argument is a number, no pointer.
    let fd = Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the kernel has just made it for us.
    let slave = unsafe { OwnedFd::from_raw_fd(fd) };
    fcntl(&slave, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(slave)
}

/// Rows and columns of a terminal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

/// `TIOCGWINSZ`.
pub fn window_size(terminal: BorrowedFd<'_>) -> Result<WindowSize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: writes one `struct winsize`, to `size`.
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    Errno::result(done)?;
    Ok(WindowSize { rows: size.ws_row, columns: size.ws_col })
}

/// `TIOCSWINSZ`: the foreground group gets SIGWINCH if it changed.
pub fn set_window_size(terminal: BorrowedFd<'_>, size: WindowSize) -> Result<()> {
    let (ws_row, ws_col) = (size.rows, size.columns);
    let size = libc::winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: reads one `struct winsize`, from `size`.
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    Errno::result(done).map(drop)
}

/// `FIONREAD`: how many bytes wait to be read.
pub fn waiting(fd: BorrowedFd<'_>) -> Result<u64> {
    let mut len: libc::c_int = 0;
    // SAFETY: writes one int, to `len`.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut len) })?;
    u64::try_from(len).map_err(|_| Errno::EOVERFLOW)
}

#[cfg(test)]
mod tests;
