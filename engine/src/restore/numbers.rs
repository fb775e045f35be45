//! Keeps the image's numbers free until they are taken.
//!
//! In a PID namespace that has just begun, our own threads and helpers would be given the very numbers
//! that the image needs. And who forks in the tree afterwards shall not get a number that was in use a
//! moment ago. So the kernel is told to count on from beyond all of them.
//! Kernel: `ns_last_pid` of `Documentation/admin-guide/sysctl/kernel.rst`, as `pid_ns_ctl_handler`
//! takes it: for the namespace of who writes, with `CAP_CHECKPOINT_RESTORE`.
use std::fs;

use crate::inventory::Inventory;

const LAST: &str = "/proc/sys/kernel/ns_last_pid";
const HIGHEST: &str = "/proc/sys/kernel/pid_max";
/// Below are none that a restore makes up itself, for stand-ins.
const ROOM: i32 = 1000;

/// Has new tasks numbered from beyond the image's numbers. Where we may not, it is left to chance.
pub(super) fn reserve(inventory: &Inventory) {
    let processes = inventory.processes.keys().map(|pid| pid.0);
    let used = processes.chain(inventory.threads.keys().map(|tid| tid.0)).max().unwrap_or(0);
    let number = |path| fs::read_to_string(path).ok()?.trim().parse::<i32>().ok();
    let (Some(last), Some(highest)) = (number(LAST), number(HIGHEST)) else { return };
    if let Some(wanted) = beyond(used, last, highest)
        && let Err(error) = fs::write(LAST, wanted.to_string())
    {
        tracing::debug!(%error, "new tasks may take numbers of the image");
    }
}

/// Where to count from, if not from where the kernel is.
fn beyond(used: i32, last: i32, highest: i32) -> Option<i32> {
    let wanted = used.checked_add(ROOM).filter(|wanted| wanted.saturating_add(ROOM) < highest)?;
    (last < wanted).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_counts_forward_only() {
        assert_eq!(beyond(30, 5, 32_768), Some(30 + ROOM));
        assert_eq!(beyond(30, 4000, 32_768), None);
        assert_eq!(beyond(32_000, 5, 32_768), None, "there is no room beyond");
    }
}
