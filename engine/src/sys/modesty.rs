//! What can wait: work that takes of processors and disks what others leave.
//!
//! Kernel: sched(7), "The autogroup feature" and "The nice value"; `ioprio_set(2)`.
use std::io;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{getpgid, getpgrp, getpid, getppid, getsid, setpgid, setsid};

/// A quarter of a processor that others want: who got much less would not be done when the next snapshot is due,
/// and the longer it takes the more has changed by then.
const NICE: i32 = 5;
/// `IOPRIO_WHO_PROCESS`, and of `IOPRIO_CLASS_BE` the lowest level (`include/uapi/linux/ioprio.h`).
const WHO_PROCESS: i64 = 1;
const LOWEST: i64 = 2 << 13 | 7;

/// The calling thread gives way from now on, and those that it starts. Their process gets a session of its own:
/// where the scheduler divides time among sessions first, a nice value counts only within one.
pub fn give_way() -> io::Result<()> {
    let (me, parent) = (getpid(), getppid());
    if getsid(None)? != me {
        // Whoever leads a group gets no session.
        if getpgrp() == me {
            setpgid(me, getpgid(Some(parent))?)?;
        }
        setsid()?;
    }
    match std::fs::write("/proc/self/autogroup", NICE.to_string()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // SAFETY: the call takes numbers only; zero is the calling thread.
    Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) })?;
    // SAFETY: likewise.
    Errno::result(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, LOWEST) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    /// Of a thread in `stat`: its nice value; and of its process, the session.
    fn nice_and_session() -> (i32, i32) {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let words: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        (words[16].parse().unwrap(), words[3].parse().unwrap())
    }

    #[test]
    fn helpers_give_way_too() {
        // SAFETY: the child only makes calls of its own and ends without unwinding.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let me = nix::unistd::getpid().as_raw();
                let leads = setpgid(nix::unistd::Pid::from_raw(0), nix::unistd::Pid::from_raw(0));
                let done = leads.is_ok() && give_way().is_ok();
                let helper = std::thread::spawn(nice_and_session).join().unwrap();
                let right = done && nice_and_session() == (NICE, me) && helper == (NICE, me);
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(i32::from(!right)) }
            }
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
            }
        }
    }
}
