//! A process in namespaces other than ours is refused: its numbers, mounts, addresses and users
//! mean something else than what we read. Kernel: namespaces(7), `/proc/PID/ns`.
use std::fs;

use crate::error::{Cause, Obstacle, Result, kernel_io};
use crate::inventory::Pid;

const OTHER: Cause = Cause {
    code: "namespace:other",
    reason: "it lives in a namespace of its own",
    remedy: "checkpoint from within that namespace, or run the program without one",
};
const NAMES: [&str; 10] = [
    "cgroup",
    "ipc",
    "mnt",
    "net",
    "pid",
    "pid_for_children",
    "time",
    "time_for_children",
    "user",
    "uts",
];

/// Adds an obstacle for each namespace that is not ours.
pub(super) fn check(pid: Pid, obstacles: &mut Vec<Obstacle>) -> Result<()> {
    for name in NAMES {
        // Ours for children may be one that we have only prepared.
        let ours = name.trim_end_matches("_for_children");
        let (theirs, ours) = (read(&format!("/proc/{pid}/ns/{name}"))?, read(&own(ours))?);
        if theirs != ours {
            obstacles.push(Obstacle {
                pid: Some(pid),
                object: format!("namespace {name}"),
                cause: OTHER,
            });
        }
    }
    Ok(())
}

fn own(name: &str) -> String {
    format!("/proc/self/ns/{name}")
}

/// `None` on a kernel built without it, and for the children of who made a PID namespace, before the
/// first is born.
fn read(path: &str) -> Result<Option<std::path::PathBuf>> {
    match fs::read_link(path) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(kernel_io("readlink")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_are_no_obstacle() {
        let mut obstacles = Vec::new();
        check(Pid(std::process::id().cast_signed()), &mut obstacles).unwrap();
        assert_eq!(obstacles, []);
    }
}
