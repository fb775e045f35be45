//! System V IPC is nobody's: it stays in its IPC namespace, beside the tree. Refused is what would be
//! lost: everything, where the namespace is the workload's own and ends with it; elsewhere semaphores
//! that the tree has used, for its end undoes what it did under `SEM_UNDO`, and nothing tells that.
//!
//! Kernel: sysvipc(7), semop(2), `/proc/sysvipc`.
use std::collections::BTreeMap;

use crate::error::{Cause, Obstacle};
use crate::inventory::Pid;
use crate::procfs;
use crate::sys::semaphore;

const OWN: Cause = Cause {
    code: "system_v:own",
    reason: "it would end with the workload's IPC namespace",
    remedy: "have the program remove it for the checkpoint",
};
const USED: Cause = Cause {
    code: "system_v:used",
    reason: "it has used it, perhaps with SEM_UNDO, and its end would undo that",
    remedy: "have the program remove it for the checkpoint",
};
/// Files of `/proc/sysvipc`, and what each lists.
const LISTS: [(&str, &str); 3] =
    [("shm", "shared memory segment"), ("sem", SET), ("msg", "message queue")];
const SET: &str = "semaphore set";

/// All there is in our IPC namespace, which is the workload's own.
pub(super) fn own(obstacles: &mut Vec<Obstacle>) {
    for (list, what) in LISTS {
        let found = entries(&text(list)).map(|[id, _]| named(what, id)).collect::<Vec<_>>();
        obstacles.extend(found.into_iter().map(|object| Obstacle {
            pid: None,
            object,
            cause: OWN,
        }));
    }
}

/// Sets of which a semaphore was last used by one of `members`.
pub(super) fn used<T>(members: &BTreeMap<Pid, T>, obstacles: &mut Vec<Obstacle>) {
    for [id, count] in entries(&text("sem")) {
        let users = (0..count).filter_map(|number| semaphore::last_user(id, number).ok());
        if let Some(pid) = users.map(Pid).find(|pid| members.contains_key(pid)) {
            obstacles.push(Obstacle { pid: Some(pid), object: named(SET, id), cause: USED });
        }
    }
}

fn text(list: &str) -> String {
    procfs::text(format!("/proc/sysvipc/{list}")).unwrap_or_default()
}

fn named(what: &str, id: i32) -> String {
    format!("System V {what} {id}")
}

/// The identifiers in a list, below its heading, and of semaphores how many there are.
fn entries(text: &str) -> impl Iterator<Item = [i32; 2]> {
    let entry = |line: &str| {
        let mut words = line.split_ascii_whitespace().map(|word| word.parse().unwrap_or(0));
        Some([words.nth(1)?, words.nth(1)?])
    };
    text.lines().skip(1).filter_map(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_identifiers_and_counts() {
        let text = "       key      semid perms      nsems   uid\n         0          7   600          2     0\n";
        assert_eq!(entries(text).collect::<Vec<_>>(), [[7, 2]]);
        assert_eq!(entries("       key      semid\n").count(), 0);
    }
}
