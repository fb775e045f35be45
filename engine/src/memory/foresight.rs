//! What is slow to be told of address spaces: asked for before a pause, and once more after it.
//!
//! Flags of areas are told by smaps only, for which the kernel looks at every page: some 20 ms for each GiB.
//! So whoever has much is asked while it runs, unless the parent image tells ([`remembered`]). In the pause
//! `maps` tells which areas there are; each is taken to have the flags that it, or what it grew out of, had
//! before. Once the program runs again, its twin, which has the same areas with the same flags, tells what
//! they were ([`witness`](super::witness)). Where there is no twin, because little has changed, it is asked
//! itself once more, while the image is written: if it says what it said before, that was so in between. Who
//! has areas that a twin lacks, or whose flags it lacks, is asked in the pause as ever.
use std::collections::BTreeMap;

use super::estimate::{TWIN_FROM, is_twin_worth};
use super::ranges::length;
use super::tracker::write_protect::forget_watching;
use super::tracker::{Asked, Tracker};
use super::{flags, remembered};
use crate::error::Result;
use crate::inventory::{Inventory, Pid};
use crate::procfs;
use crate::procfs::smaps::{self, Area};

/// What processes told before they were stopped.
#[derive(Debug, Default)]
pub struct Foresight {
    /// Their smaps.
    told: BTreeMap<Pid, String>,
    /// What those told that are watched.
    asked: BTreeMap<Pid, Asked>,
}

impl Foresight {
    /// Asks those that have much, and may have a twin. Who is gone is left out.
    #[tracing::instrument(level = "trace", skip_all)]
    pub fn of(pids: &[Pid], trackers: &mut [Tracker], parent: Option<&Inventory>) -> Self {
        // Which pages others have too, no image tells.
        let parent = parent.filter(|_| pids.len() == 1);
        let sizes: BTreeMap<_, _> = pids.iter().map(|pid| (*pid, private(*pid))).collect();
        let large = sizes.iter().filter(|(_, all)| **all >= TWIN_FROM);
        let told: BTreeMap<_, _> =
            large.filter_map(|(pid, _)| Some((*pid, told(*pid, parent)?))).collect();
        let watched = trackers.iter_mut().filter(|one| told.contains_key(&one.pid));
        let ask = |tracker: &mut Tracker| {
            let all = sizes.get(&tracker.pid).copied().unwrap_or_default();
            (tracker.pid, tracker.ask(all))
        };
        let asked = watched.map(ask).collect();
        Self { told, asked }
    }

    /// Of a tree that shall stand until all is written: what most areas are is taken to be so, until smaps
    /// has told while they are written.
    #[must_use]
    pub fn of_most(pids: &[Pid]) -> Self {
        let large = pids.iter().filter(|pid| pids.len() == 1 && private(**pid) >= TWIN_FROM);
        let guess = |pid: &Pid| {
            Some((*pid, remembered::most(&procfs::text(format!("/proc/{pid}/maps")).ok()?)?))
        };
        Self { told: large.filter_map(guess).collect(), asked: BTreeMap::new() }
    }

    /// What a process told that is watched.
    pub(super) fn asked(&self, pid: Pid) -> Option<&Asked> {
        self.asked.get(&pid)
    }

    /// Whether a process was asked.
    pub(crate) fn knows(&self, pid: Pid) -> bool {
        self.told.contains_key(&pid)
    }

    /// How much of its memory will have to be copied in the pause, about; and how much of that was not copied
    /// ahead.
    pub(crate) fn to_copy(&self, pid: Pid) -> (u64, u64) {
        let (all, asked) = (private(pid), self.asked(pid));
        let changed = asked.map_or(all, |asked| asked.changed);
        if is_twin_worth(changed, all) {
            return (0, 0);
        }
        let ahead = asked.map_or(0, |asked| length(asked.ahead.ranges()));
        (changed, changed.saturating_sub(ahead as u64))
    }

    /// The areas that a stopped process has, as `maps` tells them, with what can be foreseen of each.
    /// `None`: it has to be asked now.
    pub(super) fn areas<'a>(&'a self, pid: Pid, maps: &'a str) -> Result<Option<Vec<Area<'a>>>> {
        let Some(told) = self.told.get(&pid) else { return Ok(None) };
        if locks(pid) {
            return Ok(None); // Children do not.
        }
        // Of a process that runs, some may be told twice.
        let Ok(before) = smaps::parse(told) else { return Ok(None) };
        let areas = foreseen(before, smaps::parse(maps)?);
        // Where it seems to be watched, and is not now, another one is there by now.
        Ok(areas.and_then(|mut areas| forget_watching(pid, &mut areas).then_some(areas)))
    }
}

/// What smaps tells of a running process, or would.
fn told(pid: Pid, parent: Option<&Inventory>) -> Option<String> {
    let text = |name| procfs::text(format!("/proc/{pid}/{name}")).ok();
    let remembered = parent.and_then(|image| remembered::smaps(&text("maps")?, image, pid));
    remembered.or_else(|| text("smaps"))
}

/// How much private memory a process has, in bytes: at most that has to be saved of it.
pub(crate) fn private(pid: Pid) -> u64 {
    let text = procfs::text(format!("/proc/{pid}/status")).unwrap_or_default();
    procfs::kib(&text, "RssAnon:") << 10
}

fn locks(pid: Pid) -> bool {
    let text = procfs::text(format!("/proc/{pid}/status")).unwrap_or_default();
    procfs::kib(&text, "VmLck:") > 0
}

/// Areas of `now`, with the flags of what was there `before`.
fn foreseen<'a>(before: Vec<Area<'a>>, now: Vec<Area<'a>>) -> Option<Vec<Area<'a>>> {
    // Not forked.
    if before.iter().any(|area| area.flags.contains(&"dc")) {
        return None;
    }
    let mut before = before.into_iter().peekable();
    let of = |area: Area<'a>| {
        while before.next_if(|old| old.end <= area.start).is_some() {}
        let old = before.peek().filter(|old| old.start < area.end);
        match old {
            Some(old) if area.is_at(old) => Some(old.clone()),
            // How a file is opened that has just been mapped depends on flags.
            _ if area.inode != 0 || area.shared => None,
            // What grows, shrinks or is split stays what it is.
            Some(old) if flags::stays(&old.flags) => None,
            Some(old) => Some(Area { flags: old.flags.clone(), ..area }),
            None => Some(area),
        }
    };
    now.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAP: &str = "1000-3000 rw-p 00000000 00:00 0 [heap]";
    const NEW: &str = "f000-ffff rw-p 00000000 00:00 0";

    fn smaps(line: &str, flags: &str) -> String {
        smaps::text([(line, flags.to_owned())])
    }

    fn flags_now<'a>(before: &'a str, now: &'a str) -> Option<Vec<Vec<&'a str>>> {
        let areas = foreseen(smaps::parse(before).unwrap(), smaps::parse(now).unwrap())?;
        Some(areas.into_iter().map(|area| area.flags).collect())
    }

    #[test]
    fn what_is_or_grows_has_the_flags_that_it_had() {
        let before = smaps(HEAP, "rd wr mg");
        let grown = HEAP.replace("3000", "9000");
        assert_eq!(flags_now(&before, HEAP), Some(vec![vec!["rd", "wr", "mg"]]));
        let both = format!("{grown}\n{NEW}");
        assert_eq!(flags_now(&before, &both), Some(vec![vec!["rd", "wr", "mg"], vec![]]));
    }

    #[test]
    fn what_a_twin_would_lack_is_not_foreseen() {
        assert_eq!(flags_now(&smaps(HEAP, "rd wr dc"), HEAP), None);
        let wiped = smaps(HEAP, "rd wr wf");
        assert!(flags_now(&wiped, HEAP).is_some());
        assert_eq!(flags_now(&wiped, &HEAP.replace("3000", "4000")), None);
        let file = "f000-ffff r--s 00000000 fe:00 7 /file";
        assert_eq!(flags_now(&smaps(HEAP, "rd wr"), &format!("{HEAP}\n{file}")), None);
    }
}
