//! Who is in a tree while it runs: a guess, for what is done before it is stopped.
//!
//! Kernel: `/proc/PID/task/TID/children`, which may miss some while others end (proc(5)).
use std::fs;

use crate::inventory::Pid;
use crate::procfs;

/// These processes and all their descendants.
#[must_use]
pub fn of(roots: &[Pid]) -> Vec<Pid> {
    let (mut waiting, mut all) = (roots.to_vec(), Vec::new());
    while let Some(pid) = waiting.pop() {
        all.push(pid);
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = procfs::text(task.path().join("children")).unwrap_or_default();
            waiting.extend(children.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_are_found() {
        let mut child =
            std::process::Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().unwrap();
        let me = Pid(std::process::id().cast_signed());
        while of(&[Pid(child.id().cast_signed())]).len() < 2 {
            std::thread::yield_now();
        }
        let all = of(&[me]);
        assert_eq!(all[0], me);
        for pid in of(&[Pid(child.id().cast_signed())]) {
            assert!(all.contains(&pid));
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid.0),
                nix::sys::signal::SIGKILL,
            );
        }
        child.wait().unwrap();
    }
}
