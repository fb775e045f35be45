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
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    #[test]
    fn a_process_that_leads_a_group_gives_way_in_a_session_of_its_own() {
        let mut command = Command::new("cat");
        command.arg("/proc/self/stat").process_group(0);
        // SAFETY: between fork and exec it makes calls, and allocates, which glibc allows there.
        let output = unsafe { command.pre_exec(give_way) }.output().unwrap();
        let stat = String::from_utf8(output.stdout).unwrap();
        let (pid, rest) = stat.split_once(" (cat) ").unwrap();
        let words: Vec<_> = rest.split(' ').collect();
        assert_eq!((words[3], words[16]), (pid, NICE.to_string().as_str()), "{stat}");
    }
}
