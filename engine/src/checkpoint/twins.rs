//! Whether a process may have a twin: pure rules, but for reading /proc and control groups.
//!
//! A twin costs what the program writes while it lives, at most all that the program has. That must fit,
//! into the machine and into the control group, for what does not fit ends with somebody being killed.
use std::fs;

use crate::attribute::Owner;
use crate::error::{Result, kernel_io};
use crate::inventory::{Inventory, Pid};
use crate::procfs::{self, kib};

/// Where the unified hierarchy is mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Whether there is room for all that this process has once more.
pub(super) fn is_room_for(pid: Pid) -> Result<bool> {
    let read = |path: &str| procfs::text(path).map_err(kernel_io("read"));
    let needed = kib(&read(&format!("/proc/{pid}/status"))?, "RssAnon:");
    let available = kib(&read("/proc/meminfo")?, "MemAvailable:");
    let groups = read(&format!("/proc/{pid}/cgroup"))?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let number = |path: String| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let left = above(group).filter_map(|group| {
        let limit = number(format!("{CGROUPS}{group}/memory.max"))?;
        let used = number(format!("{CGROUPS}{group}/memory.current"))?;
        Some(limit.saturating_sub(used) >> 10)
    });
    Ok(fits(needed, left.chain([available])))
}

/// Whether so much fits everywhere. Half of it is left to the others.
fn fits(needed: u64, mut left: impl Iterator<Item = u64>) -> bool {
    left.all(|left| needed <= left / 2)
}

/// A control group and those above it.
fn above(group: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(group.trim_end_matches('/')), |group: &&str| {
        group.rsplit_once('/').map(|(parent, _)| parent)
    })
}

/// Whether nobody in the tree inherits the twin, and then waits for it: neither the process nor anybody
/// above it is a subreaper (`find_new_reaper()` in the kernel's `kernel/exit.c`).
pub(super) fn unheard_of(inventory: &Inventory, pid: Pid) -> bool {
    let parent = |pid: &Pid| inventory.processes.get(pid).and_then(|process| process.parent);
    let mut line = std::iter::successors(Some(pid), parent);
    !line.any(|pid| {
        let key = (Owner::Process(pid), "child_subreaper".to_owned());
        // What is not set takes no bytes.
        inventory.attributes.get(&key).is_some_and(|state| !state.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{FsId, Life, Process, SpaceId, TableId};

    #[test]
    fn all_that_there_is_must_fit_twice() {
        assert!(fits(100, [1000, 200].into_iter()));
        assert!(!fits(100, [1000, 199].into_iter()));
        assert_eq!(kib("VmRSS:\t 7 kB\nRssAnon:\t     12 kB\n", "RssAnon:"), 12);
    }

    #[test]
    fn groups_above_limit_too() {
        assert_eq!(above("/a/b").collect::<Vec<_>>(), ["/a/b", "/a", ""]);
        assert_eq!(above("/").collect::<Vec<_>>(), [""]);
    }

    #[test]
    fn a_subreaper_would_inherit_the_twin() {
        let process = |parent| Process {
            parent,
            group: 1,
            session: 1,
            exit_signal: 17,
            life: Life::Running,
            name: String::new(),
            table: TableId(0),
            space: SpaceId(0),
            fs: FsId(0),
            threads: Vec::new(),
        };
        let processes = [(Pid(1), process(None)), (Pid(2), process(Some(Pid(1))))].into();
        let mut inventory = Inventory { processes, ..Inventory::default() };
        let key = |pid| (Owner::Process(Pid(pid)), "child_subreaper".to_owned());
        inventory.attributes.insert(key(1), Vec::new());
        assert!(unheard_of(&inventory, Pid(2)));
        inventory.attributes.insert(key(1), vec![8, 1]);
        assert!(!unheard_of(&inventory, Pid(2)) && !unheard_of(&inventory, Pid(1)));
        inventory.attributes = [(key(2), vec![8, 1]), (key(1), Vec::new())].into();
        assert!(unheard_of(&inventory, Pid(1)));
    }
}
