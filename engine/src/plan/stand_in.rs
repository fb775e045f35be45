//! Processes that have died but are remembered: by a socket, whose peer asks who made it, or by a folder
//! of /proc that somebody is still in. One has the number again until everything is in its place.
use std::collections::BTreeMap;

use super::{Birth, Host, PID_TAKEN, Stage, Step, Steps};
use crate::error::{Obstacle, Result};
use crate::inventory::{Inventory, Pid, Tid};
use crate::object::KINDS;

/// Whose numbers, and whether that is a must.
pub(super) fn wanted(inventory: &Inventory) -> Result<BTreeMap<Pid, bool>> {
    let mut wanted = BTreeMap::<Pid, bool>::new();
    for record in inventory.objects.values() {
        let kind = KINDS.iter().find(|kind| kind.name == record.kind);
        let of_one = kind.map(|kind| (kind.stand_ins)(&record.state)).transpose()?;
        for one in of_one.into_iter().flatten() {
            *wanted.entry(one.pid).or_default() |= one.needed;
        }
    }
    Ok(wanted)
}

/// Adds births and deaths. One who is born already, to lead a session, only lives longer.
pub(super) fn add(
    inventory: &Inventory,
    host: &Host,
    wanted: BTreeMap<Pid, bool>,
    steps: &mut Steps,
    obstacles: &mut Vec<Obstacle>,
) {
    for (pid, needed) in wanted {
        let end = Step::Bury { pid };
        if let Some((stage, _)) = steps.iter_mut().find(|(_, step)| *step == end) {
            *stage = Stage::Threads;
            continue;
        }
        let member = inventory.processes.contains_key(&pid);
        if host.taken.contains_key(&pid) || member || inventory.threads.contains_key(&Tid(pid.0)) {
            let object = "the place of a process that has ended".into();
            let obstacle = Obstacle { pid: Some(pid), object, cause: PID_TAKEN };
            obstacles.extend(needed.then_some(obstacle));
            continue;
        }
        let birth = Birth { pid, own: true, ..Birth::default() };
        steps.push((Stage::Blanks, Step::Fork(birth)));
        steps.push((Stage::Threads, end));
    }
}
