//! What is not as it was after a restore, and no obstacle.
use std::collections::BTreeSet;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::Options;
use crate::attribute;
use crate::error::{Result, kernel};
use crate::inventory::{Clocks, Inventory, Pid, Process};
use crate::plan::Host;

/// A clock that differs by less has just been looked at.
const JUMP: Duration = Duration::from_secs(1);

/// All of it, told before anything is started.
pub(super) fn of(inventory: &Inventory, options: &Options, host: &Host) -> Result<Vec<String>> {
    let mut notes = attribute::lacking(&inventory.attributes)?.notes;
    notes.extend(foreign_leaders(inventory, host));
    if !options.continue_clocks {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(kernel("clock_gettime"))?;
        notes.extend(jump(inventory.clocks, Duration::from(now)));
    }
    Ok(notes)
}

/// Sessions and groups that are somebody else's here, whose members are in ours now.
fn foreign_leaders(inventory: &Inventory, host: &Host) -> Vec<String> {
    let of = |what: &str, number: fn(&Process) -> i32| {
        let numbers: BTreeSet<_> = inventory.processes.values().map(number).collect();
        let foreign = numbers.into_iter().filter_map(|number| {
            let holder = host.taken.get(&Pid(number))?;
            Some(format!("{what} {number} is led by {holder}: its members are in ours"))
        });
        foreign.collect::<Vec<_>>()
    };
    let groups = of("process group", |process| process.group);
    [of("session", |process| process.session), groups].concat()
}

/// Monotonic time, which no program expects to jump.
fn jump(then: Clocks, now: Duration) -> Option<String> {
    let then = Duration::from_nanos(u64::try_from(then.monotonic).ok()?);
    let how = if now < then { "back" } else { "forth" };
    let by = now.abs_diff(then);
    let seconds = by.as_secs_f64();
    (by > JUMP).then(|| format!("monotonic time has jumped {how} by {seconds:.1} s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_noted_in_either_direction() {
        let then = Clocks { monotonic: 10_000_000_000, ..Clocks::default() };
        let told = |now| jump(then, Duration::from_millis(now));
        assert_eq!(told(10_500), None);
        assert_eq!(told(12_500).as_deref(), Some("monotonic time has jumped forth by 2.5 s"));
        assert_eq!(told(1_000).as_deref(), Some("monotonic time has jumped back by 9.0 s"));
    }
}
