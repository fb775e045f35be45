//! A process in namespaces other than ours is refused: its numbers, mounts, addresses and users
//! mean something else than what we read. Kernel: namespaces(7), `/proc/PID/ns`.
use crate::error::{Cause, Obstacle, Result, kernel_io};
use crate::inventory::Pid;
use crate::procfs::namespace;

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
        let of = |whose: &str, name| namespace(whose, name).map_err(kernel_io("readlink"));
        if of(&pid.to_string(), name)? != of("self", ours)? {
            obstacles.push(Obstacle {
                pid: Some(pid),
                object: format!("namespace {name}"),
                cause: OTHER,
            });
        }
    }
    Ok(())
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
