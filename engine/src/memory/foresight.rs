//! What is slow to be told of address spaces: asked for before a pause, and once more after it.
//!
//! Flags of areas are told by smaps only, for which the kernel looks at every page: some 20 ms for each GiB.
//! So whoever has much is asked while it runs. In the pause `maps` tells which areas there are; each is taken
//! to have the flags that it, or what it grew out of, had before. Once the program runs again, its twin,
//! which has the same areas with the same flags, tells what they were ([`confirm`]). Where there is no twin,
//! because little has changed, it is asked itself once more: if it says what it said before, that was so
//! in between. Who has areas that a twin lacks, or whose flags it lacks, is asked in the pause as ever.
use std::collections::BTreeMap;

use super::collect::{kept, refused};
use super::estimate::{TWIN_FROM, is_twin_worth};
use super::flags;
use super::tracker::write_protect::forget_watching;
use super::tracker::{Asked, Tracker};
use crate::error::{Error, Obstacle, Result};
use crate::inventory::{Pid, Space, SpaceId, Vma};
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
    pub fn of(pids: impl IntoIterator<Item = Pid>, trackers: &mut [Tracker]) -> Self {
        let large = pids.into_iter().filter(|pid| private(*pid) >= TWIN_FROM);
        let told = |pid| Some((pid, procfs::text(format!("/proc/{pid}/smaps")).ok()?));
        let told: BTreeMap<_, _> = large.filter_map(told).collect();
        let watched = trackers.iter_mut().filter(|one| told.contains_key(&one.pid));
        let asked =
            watched.map(|tracker| (tracker.pid, tracker.ask(private(tracker.pid)))).collect();
        Self { told, asked }
    }

    /// What a process told that is watched.
    pub(super) fn asked(&self, pid: Pid) -> Option<&Asked> {
        self.asked.get(&pid)
    }

    /// Whether a process was asked.
    pub(crate) fn knows(&self, pid: Pid) -> bool {
        self.told.contains_key(&pid)
    }

    /// How much of its memory will have to be copied in the pause, about.
    pub(crate) fn to_copy(&self, pid: Pid) -> u64 {
        let all = private(pid);
        let changed = self.asked(pid).map_or(all, |asked| asked.changed);
        if is_twin_worth(changed, all) { 0 } else { changed }
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

/// Who can tell for certain what was foreseen of a space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Witness {
    pub(crate) space: SpaceId,
    /// Whose it is.
    pub(crate) pid: Pid,
    /// Whom to ask: somebody who has the same areas.
    pub(crate) told_by: Pid,
    /// That one runs, and is the one that was asked before.
    pub(crate) runs: bool,
}

impl Witness {
    /// Whose it is tells of it.
    pub(super) fn itself(space: SpaceId, pid: Pid, runs: bool) -> Self {
        Self { space, pid, told_by: pid, runs }
    }
}

/// Gives areas the flags that a witness says they have, by its smaps. The obstacles are those that the flags
/// are.
pub(crate) fn confirm(space: &mut Space, witness: Witness, smaps: &str) -> Result<Vec<Obstacle>> {
    let (pid, told) = (witness.pid, smaps::parse(smaps));
    if witness.runs {
        let same = told.is_ok_and(|mut told| {
            forget_watching(pid, &mut told);
            space.vmas.iter().all(|vma| is_as_before(vma, &told))
        });
        return if same { Ok(Vec::new()) } else { Err(Error::Changed(pid)) };
    }
    let (mut told, mut obstacles) = (told?, Vec::new());
    forget_watching(witness.told_by, &mut told);
    let mut told = told.iter().peekable();
    for vma in &mut space.vmas {
        while told.next_if(|area| area.end <= vma.start).is_some() {}
        let area = told.next_if(|area| (area.start, area.end) == (vma.start, vma.end));
        let area = area.ok_or(Error::Changed(pid))?;
        let assumed: Vec<_> = vma.flags.iter().map(String::as_str).collect();
        if flags::stays(&area.flags) != flags::stays(&assumed) {
            return Err(Error::Changed(pid)); // It was captured in the wrong way.
        }
        match kept(&vma.backing, area) {
            Ok(flags) => vma.flags = flags,
            Err(cause) => obstacles.push(refused(pid, area, cause)),
        }
    }
    Ok(obstacles)
}

/// Whether what is there now, or has grown out of it since, has the flags that it is taken to have had in
/// between. What was changed and changed back since is not seen.
fn is_as_before(vma: &Vma, now: &[Area<'_>]) -> bool {
    let first = now.partition_point(|area| area.end <= vma.start);
    let here = now.get(first).filter(|area| area.start < vma.end);
    here.is_some_and(|area| kept(&vma.backing, area).is_ok_and(|flags| flags == vma.flags))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Backing, Layout, OpenFileId};

    const HEAP: &str = "1000-3000 rw-p 00000000 00:00 0 [heap]\n";

    fn smaps(areas: &[(&str, &str)]) -> String {
        let told = areas.iter().map(|(line, flags)| format!("{line}VmFlags: {flags}\n"));
        told.collect::<Vec<_>>().concat()
    }

    fn flags_now<'a>(before: &'a str, now: &'a str) -> Option<Vec<Vec<&'a str>>> {
        let areas = foreseen(smaps::parse(before).unwrap(), smaps::parse(now).unwrap())?;
        Some(areas.into_iter().map(|area| area.flags).collect())
    }

    #[test]
    fn what_is_or_grows_has_the_flags_that_it_had() {
        let before = smaps(&[(HEAP, "rd wr mg")]);
        let grown = HEAP.replace("3000", "9000");
        let new = "f000-ffff rw-p 00000000 00:00 0\n";
        assert_eq!(flags_now(&before, HEAP), Some(vec![vec!["rd", "wr", "mg"]]));
        let both = grown + new;
        assert_eq!(flags_now(&before, &both), Some(vec![vec!["rd", "wr", "mg"], vec![]]));
    }

    #[test]
    fn what_a_twin_would_lack_is_not_foreseen() {
        assert_eq!(flags_now(&smaps(&[(HEAP, "rd wr dc")]), HEAP), None);
        let wiped = smaps(&[(HEAP, "rd wr wf")]);
        assert!(flags_now(&wiped, HEAP).is_some());
        assert_eq!(flags_now(&wiped, &HEAP.replace("3000", "4000")), None);
        let file = "f000-ffff r--s 00000000 fe:00 7 /file\n";
        assert_eq!(flags_now(&smaps(&[(HEAP, "rd wr")]), &format!("{HEAP}{file}")), None);
    }

    #[test]
    fn what_the_twin_says_is_true() {
        let (shared, backing, flags, name) = (false, Backing::Anonymous, Vec::new(), None);
        let vma = Vma { start: 0x1000, end: 0x3000, prot: 3, shared, backing, flags, name };
        let mut space = Space {
            vmas: vec![vma],
            layout: Layout::default(),
            exe: OpenFileId(0),
            vdso: Vec::new(),
            written: Vec::new(),
            guards: Vec::new(),
        };
        let mut told = |areas: &[(&str, &str)]| {
            let witness = Witness::itself(SpaceId(0), Pid(1), false);
            let obstacles = confirm(&mut space, witness, &smaps(areas))?;
            Ok::<_, Error>((obstacles.len(), space.vmas[0].flags.join(" ")))
        };
        let other = "0-1000 rw-p 00000000 00:00 0\n";
        assert_eq!(told(&[(other, ""), (HEAP, "rd wr mg")]).unwrap(), (0, "mg".into()));
        assert_eq!(told(&[(HEAP, "rd wr")]).unwrap(), (0, String::new()));
        assert_eq!(told(&[(HEAP, "rd wr um")]).unwrap().0, 1);
        assert!(matches!(told(&[(HEAP, "rd wr wf")]), Err(Error::Changed(_))));
        assert!(matches!(told(&[(other, "rd wr")]), Err(Error::Changed(_))));
    }
}
