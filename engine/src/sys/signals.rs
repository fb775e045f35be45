//! Which signals this thread blocks: all 64 of them.
use nix::errno::Errno;
use nix::{Result, libc};

/// Sets them; which ones it blocked before. By the kernel's call: glibc's would leave out the two
/// signals that it keeps for itself, one of which its timers send.
pub(crate) fn block(signals: u64) -> Result<u64> {
    let mut before = 0u64;
    // SAFETY: both are kernel signal sets, of the size that is told.
    let done = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const signals,
            &raw mut before,
            size_of::<u64>(),
        )
    };
    Errno::result(done).map(|_| before)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A timer's signal (32) once killed a blank, in which all signals seemed to be blocked.
    #[test]
    fn really_all_signals_are_blocked() {
        let before = block(u64::MAX).unwrap();
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        block(before).unwrap();
        assert!(status.contains("SigBlk:\tfffffffffffbfeff"), "{status}");
    }
}
