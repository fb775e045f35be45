//! Threads that share less with their process than threads do: descriptors, directories or namespaces of their
//! own (`unshare(2)`, `setns(2)`). What is read of a process is its first thread's: so they are refused.
use std::path::PathBuf;

use crate::error::{Cause, Obstacle, Result, kernel, kernel_io};
use crate::inventory::{Pid, Tid};
use crate::procfs::namespace;
use crate::sys::kcmp::{self, Shared};

pub(crate) const APART: Cause = Cause {
    code: "thread:apart",
    reason: "a thread of it has taken leave of what its process has",
    remedy: "have the program end that thread for the checkpoint, or make a process of it",
};

const SHARED: [(Shared, &str); 2] = [(Shared::Table, "descriptors"), (Shared::Fs, "directories")];
/// Those that a thread may leave by itself (`copy_namespaces()` and `commit_nsset()` in `kernel/nsproxy.c`).
const NAMESPACES: [&str; 7] =
    ["cgroup", "ipc", "mnt", "net", "pid_for_children", "time_for_children", "uts"];

/// Adds an obstacle for each thing that one of these threads does not share with its process.
pub(super) fn check(pid: Pid, threads: &[Tid], obstacles: &mut Vec<Obstacle>) -> Result<()> {
    if threads.is_empty() {
        return Ok(());
    }
    let own = namespaces(pid, Tid(pid.0))?;
    for tid in threads {
        let mut apart = |what: &str| {
            let object = format!("the {what} of thread {tid}");
            obstacles.push(Obstacle { pid: Some(pid), object, cause: APART });
        };
        for (what, name) in SHARED {
            if kcmp::shared(what, Pid(tid.0), pid).map_err(kernel("kcmp"))?.is_ne() {
                apart(name);
            }
        }
        for (name, (one, other)) in NAMESPACES.iter().zip(own.iter().zip(namespaces(pid, *tid)?)) {
            if *one != other {
                apart(&format!("{name} namespace"));
            }
        }
    }
    Ok(())
}

fn namespaces(pid: Pid, tid: Tid) -> Result<Vec<Option<PathBuf>>> {
    let whose = format!("{pid}/task/{tid}");
    let all = NAMESPACES.into_iter().map(|name| namespace(&whose, name));
    all.collect::<Result<_, _>>().map_err(kernel_io("readlink"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};

    /// What a thread of ours is told to lack after it has left so much.
    fn apart_after(left: CloneFlags) -> Vec<String> {
        let thread = std::thread::spawn(move || {
            unshare(left).unwrap();
            let tid = Tid(nix::unistd::gettid().as_raw());
            let mut obstacles = Vec::new();
            check(Pid(std::process::id().cast_signed()), &[tid], &mut obstacles).unwrap();
            let own = format!(" of thread {tid}");
            obstacles.iter().map(|one| one.object.replace(&own, "")).collect()
        });
        thread.join().unwrap()
    }

    #[test]
    fn what_a_thread_has_left_is_named() {
        assert_eq!(apart_after(CloneFlags::empty()), [""; 0]);
        assert_eq!(apart_after(CloneFlags::CLONE_FILES), ["the descriptors"]);
        assert_eq!(apart_after(CloneFlags::CLONE_FS), ["the directories"]);
        assert_eq!(apart_after(CloneFlags::CLONE_NEWUTS), ["the uts namespace"]);
    }
}
