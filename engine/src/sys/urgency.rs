//! What must not wait: the thread that has stopped a program runs before all others until it lets it go on.
//!
//! Otherwise it waits for a processor like everybody, and programs whose threads wake each other all the
//! time were seen to keep it from one for seconds (6.18), while some of them stand already.
use nix::errno::Errno;
use nix::{Result, libc};

/// While this lives; OS threads that are started meanwhile are as urgent, for as long as they live: none may
/// have much to do. Without privileges (`CAP_SYS_NICE`) nobody may have it: then it is done without.
#[derive(Debug)]
pub(crate) struct Urgent(());

impl Urgent {
    /// `None`: not allowed, or this thread has a policy of its own already.
    pub(crate) fn begin() -> Option<Self> {
        // SAFETY: the call takes a number only; zero is the calling thread.
        let policy = unsafe { libc::sched_getscheduler(0) };
        if policy != libc::SCHED_OTHER {
            return None;
        }
        set(libc::SCHED_RR, 1).ok().map(|()| Self(()))
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        if let Err(error) = set(libc::SCHED_OTHER, 0) {
            tracing::warn!(%error, "cannot give up precedence");
        }
    }
}

/// For the calling thread.
fn set(policy: i32, priority: i32) -> Result<()> {
    // SAFETY: `struct sched_param` is an int, and in some C libraries more of them: zeros are valid.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = priority;
    // SAFETY: `parameters` lives as long as the call, which only reads it.
    Errno::result(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> i32 {
        // SAFETY: the call takes a number only.
        unsafe { libc::sched_getscheduler(0) }
    }

    #[test]
    fn helpers_are_as_urgent_and_it_ends() {
        assert_eq!(policy(), libc::SCHED_OTHER);
        let urgent = Urgent::begin().expect("tests run as root");
        assert_eq!(policy(), libc::SCHED_RR);
        assert!(Urgent::begin().is_none());
        assert_eq!(std::thread::spawn(policy).join().unwrap(), libc::SCHED_RR);
        drop(urgent);
        assert_eq!(policy(), libc::SCHED_OTHER);
    }
}
