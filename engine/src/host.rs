//! What a restore has to know of the machine before it starts anything.
use std::collections::BTreeSet;
use std::path::Path;

use nix::unistd::getsid;

use crate::error::{Cause, Obstacle, Result, kernel, kernel_io};
use crate::inventory::{Inventory, Pid};
use crate::plan::Host;
use crate::procfs;
use crate::procfs::stat::Stat;
use crate::tracee::vdso_image_end;

/// Another kind of processor.
const ARCHITECTURE: Cause = Cause {
    code: "host:architecture",
    reason: "the snapshot was taken on another kind of processor",
    remedy: "restore it on a machine of that kind",
};
/// A processor that lacks something.
const FLAGS: Cause = Cause {
    code: "host:cpu-flags",
    reason: "this processor lacks what the program may have found and rely on",
    remedy: "restore it on a machine whose processor has it",
};

/// Another kernel.
const VDSO: Cause = Cause {
    code: "host:vdso",
    reason: "this kernel's vdso is another one than the program has been calling",
    remedy: "restore it under the kernel it was saved under",
};

/// Which of the image's numbers others have.
pub(crate) fn look(inventory: &Inventory) -> Result<Host> {
    let session = getsid(None).map_err(kernel("getsid"))?.as_raw();
    let mut numbers = BTreeSet::new();
    for (pid, process) in &inventory.processes {
        numbers.extend([pid.0, process.group, process.session]);
        numbers.extend(process.threads.iter().map(|tid| tid.0));
    }
    let led = led()?;
    let holder = |number| match holder(number) {
        None if number == session => Some("our own session".to_owned()),
        None if led.contains(&number) => Some("a group or session whose leader is gone".to_owned()),
        holder => holder,
    };
    let taken = numbers.into_iter().filter_map(|number| Some((Pid(number), holder(number)?)));
    Ok(Host { taken: taken.collect(), session })
}

/// Who has a number: a process, or a thread of one, whose folder is there though it is not listed.
fn holder(number: i32) -> Option<String> {
    let folder = format!("/proc/{number}");
    if !Path::new(&folder).exists() {
        return None;
    }
    let status = procfs::text(folder + "/status").unwrap_or_default();
    let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let name = line("Name:").unwrap_or("unknown");
    Some(match line("Tgid:").and_then(|tgid| tgid.parse::<i32>().ok()) {
        Some(process) if process != number => format!("a thread of process {process} ({name})"),
        _ => format!("process {number} ({name})"),
    })
}

/// Groups and sessions of everybody: their numbers are in use even if whoever had them is gone.
fn led() -> Result<BTreeSet<i32>> {
    let mut led = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").map_err(kernel_io("readdir(/proc)"))?.flatten() {
        // Whoever ends meanwhile leads nobody.
        let text = std::fs::read(entry.path().join("stat")).unwrap_or_default();
        if let Ok(stat) = Stat::parse(&String::from_utf8_lossy(&text)) {
            led.extend([stat.group()?, stat.session()?]);
        }
    }
    Ok(led)
}

/// What the machine lacks.
pub(crate) fn lacks(inventory: &Inventory) -> Vec<Obstacle> {
    let machine = &inventory.machine;
    let mut obstacles = Vec::new();
    let mut add = |object: String, cause| obstacles.push(Obstacle { pid: None, object, cause });
    if !machine.architecture.is_empty() && machine.architecture != std::env::consts::ARCH {
        add(format!("architecture {}", machine.architecture), ARCHITECTURE);
    }
    if !machine.flags.is_empty() {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let missing = missing(&text, &machine.flags);
        if !missing.is_empty() {
            add(format!("cpu flags {}", missing.join(" ")), FLAGS);
        }
    }
    if !same_vdso(inventory) {
        let object = format!("kernel {}", machine.kernel);
        obstacles.push(Obstacle { pid: None, object, cause: VDSO });
    }
    obstacles
}

/// Whether programs find the vdso they know. Ours is not read but compared by where it ends and by
/// its ELF image: behind that, a checkpoint's cave may have left something.
fn same_vdso(inventory: &Inventory) -> bool {
    let Some(here) = crate::sys::vdso() else { return true };
    let image = |bytes: &[u8]| bytes.get(..vdso_image_end(bytes)?).map(<[u8]>::to_vec);
    let spaces = inventory.spaces.values().filter(|space| !space.vdso.is_empty());
    spaces
        .into_iter()
        .all(|space| space.vdso.len() == here.len() && image(&space.vdso) == image(&here))
}

/// Those of `wanted` that cpuinfo does not name.
fn missing<'a>(cpuinfo: &str, wanted: &'a [String]) -> Vec<&'a str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("flags"));
    let have: BTreeSet<_> = line
        .and_then(|line| line.split_once(':'))
        .map_or("", |(_, flags)| flags)
        .split(' ')
        .collect();
    wanted.iter().map(String::as_str).filter(|flag| !have.contains(flag)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_flags_are_named() {
        let text = "processor\t: 0\nflags\t\t: fpu sse avx2\nbugs\t: none\n";
        let wanted = ["avx2", "avx512f"].map(str::to_owned);
        assert_eq!(missing(text, &wanted), ["avx512f"]);
    }
}
