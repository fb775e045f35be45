//! Where and when a checkpoint was taken, and what of the tree reaches out of it.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use nix::sys::utsname::uname;
use nix::time::{ClockId, clock_gettime};

use crate::error::{Obstacle, Result, kernel, kernel_io};
use crate::inventory::{Clocks, Inventory, Machine, Note, Pid};
use crate::plan::{Host, obstacles};

/// What this machine has. `/proc/cpuinfo` may take milliseconds: not to be asked in a pause.
pub(super) fn machine() -> Result<Machine> {
    let text = fs::read_to_string("/proc/cpuinfo").map_err(kernel_io("read"))?;
    let line = text.lines().find(|line| line.starts_with("flags"));
    let flags = line.and_then(|line| line.split_once(':')).map_or("", |(_, flags)| flags);
    let names = uname().map_err(kernel("uname"))?;
    Ok(Machine {
        architecture: std::env::consts::ARCH.into(),
        kernel: names.release().to_string_lossy().into_owned(),
        flags: flags.split_ascii_whitespace().map(str::to_owned).collect(),
        ..Machine::default()
    })
}

/// What the clocks show, in our time namespace, which is the workload's.
pub(super) fn clocks() -> Result<Clocks> {
    let now = |clock| -> Result<i64> {
        let time = clock_gettime(clock).map_err(kernel("clock_gettime"))?;
        Ok(time.tv_sec() * 1_000_000_000 + time.tv_nsec())
    };
    Ok(Clocks {
        monotonic: now(ClockId::CLOCK_MONOTONIC)?,
        boottime: now(ClockId::CLOCK_BOOTTIME)?,
        realtime: now(ClockId::CLOCK_REALTIME)?,
    })
}

/// Offset of the first of the bytes that FXSAVE leaves to software: the kernel keeps there the
/// features that the area may hold (`struct _fpx_sw_bytes`, `arch/x86/include/uapi/asm/sigcontext.h`).
const XFEATURES: std::ops::Range<usize> = 464..472;

/// Notes groups and sessions of strangers; adds up what threads use of the processor.
#[tracing::instrument(level = "trace", skip_all)]
pub(super) fn outside(inventory: &mut Inventory) {
    let numbers: BTreeSet<_> = inventory.processes.keys().map(|pid| pid.0).collect();
    for (pid, process) in &inventory.processes {
        for (what, number) in [("group", process.group), ("session", process.session)] {
            let led = |other: &crate::inventory::Process| match what {
                "group" => other.group == number,
                _ => other.session == number,
            };
            let first = inventory.processes.iter().find(|(_, other)| led(other));
            if !numbers.contains(&number) && first.is_some_and(|(first, _)| first == pid) {
                let text = format!("its process {what} {number} is led by nobody of the tree");
                inventory.notes.push(Note { pid: Some(*pid), text });
            }
        }
    }
    for thread in inventory.threads.values() {
        let machine = &mut inventory.machine;
        machine.xsave_bytes =
            machine.xsave_bytes.max(u32::try_from(thread.xstate.len()).unwrap_or(u32::MAX));
        let word = thread.xstate.get(XFEATURES).and_then(|bytes| bytes.first_chunk());
        machine.xfeatures |= word.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    }
}

/// What no restore could do, even where the tree has all its numbers: known now, it is refused before
/// anything relies on the image.
#[tracing::instrument(level = "trace", skip_all)]
pub(super) fn not_to_be_brought_back(inventory: &Inventory) -> Result<Vec<Obstacle>> {
    let foreign = |number: &Pid| !inventory.processes.contains_key(number);
    let processes = inventory.processes.values();
    let numbers = processes.flat_map(|process| [Pid(process.group), Pid(process.session)]);
    let stranger = |number: Pid| {
        let lives = Path::new("/proc").join(number.to_string()).exists();
        lives.then(|| (number, format!("process {number}")))
    };
    let taken: BTreeMap<_, _> = numbers.filter(foreign).filter_map(stranger).collect();
    obstacles(inventory, &Host { taken, session: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine() {
        let machine = machine().unwrap();
        assert_eq!(machine.architecture, std::env::consts::ARCH);
        assert!(machine.flags.contains(&"sse2".to_owned()) || machine.architecture != "x86_64");
        let (before, after) = (clocks().unwrap(), clocks().unwrap());
        assert!(before.monotonic <= after.monotonic && before.boottime >= before.monotonic);
    }
}
