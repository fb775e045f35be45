//! Who tells for certain what was foreseen of a space: its twin, or the process itself.
use std::thread::JoinHandle;

use super::collect::{kept, refused};
use super::tracker::write_protect::forget_watching;
use super::{flags, pages};
use crate::error::{Error, Obstacle, Result, kernel_io};
use crate::inventory::{Inventory, Pid, Space, SpaceId, Vma};
use crate::procfs;
use crate::procfs::smaps::{self, Area};

/// One of them.
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

    /// Whether it is there until all is written: twins end sooner.
    pub(crate) fn stays(&self) -> bool {
        self.told_by == self.pid
    }
}

/// What they say, by smaps.
type Told = Vec<(Witness, Result<String>)>;

/// Asks them, if there are any, while something else is done: smaps of a GiB takes some 20 ms.
#[derive(Debug)]
pub(crate) struct Asking(Option<JoinHandle<Told>>);

impl Asking {
    /// They must not end before they have told.
    pub(crate) fn begin(witnesses: Vec<Witness>) -> Self {
        let any = !witnesses.is_empty();
        Self(any.then(|| std::thread::spawn(move || told(&witnesses))))
    }

    /// Replaces what was foreseen by what they say.
    pub(crate) fn confirm(self, inventory: &mut Inventory) -> Result<()> {
        let Some(asking) = self.0 else { return Ok(()) };
        let told = asking.join().map_err(|_| Error::Record("smaps".into(), None))?;
        confirm_all(inventory, told)
    }
}

/// Asks those who can tell for certain what was foreseen, and replaces it.
#[tracing::instrument(level = "trace", skip_all)]
pub(crate) fn confirm_now(inventory: &mut Inventory, witnesses: &[Witness]) -> Result<()> {
    confirm_all(inventory, told(witnesses))
}

fn told(witnesses: &[Witness]) -> Told {
    let tells = |witness: &Witness| match procfs::text(format!("/proc/{}/smaps", witness.told_by)) {
        Err(_) if witness.runs => Err(Error::Changed(witness.pid)), // It has ended.
        smaps => smaps.map_err(kernel_io("read")),
    };
    witnesses.iter().map(|witness| (*witness, tells(witness))).collect()
}

fn confirm_all(inventory: &mut Inventory, told: Told) -> Result<()> {
    let mut obstacles = Vec::new();
    for (witness, smaps) in told {
        let smaps = smaps?;
        if let Some(space) = inventory.spaces.get_mut(&witness.space) {
            obstacles.extend(confirm(space, witness, &smaps)?);
        }
    }
    if obstacles.is_empty() { Ok(()) } else { Err(Error::Refused(obstacles)) }
}

/// Gives areas the flags that a witness says they have, by its smaps. The obstacles are those that the flags
/// are.
fn confirm(space: &mut Space, witness: Witness, smaps: &str) -> Result<Vec<Obstacle>> {
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
    space.huge = pages::huge(witness.told_by, &space.vmas)?;
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

    const HEAP: &str = "1000-3000 rw-p 00000000 00:00 0 [heap]";

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
            huge: Vec::new(),
        };
        let mut told = |areas: &[(&str, &str)]| {
            let witness = Witness::itself(SpaceId(0), Pid(1), false);
            let areas = areas.iter().map(|(line, flags)| (*line, (*flags).to_owned()));
            let obstacles = confirm(&mut space, witness, &smaps::text(areas))?;
            Ok::<_, Error>((obstacles.len(), space.vmas[0].flags.join(" ")))
        };
        let other = "0-1000 rw-p 00000000 00:00 0";
        assert_eq!(told(&[(other, ""), (HEAP, "rd wr mg")]).unwrap(), (0, "mg".into()));
        assert_eq!(told(&[(HEAP, "rd wr")]).unwrap(), (0, String::new()));
        assert_eq!(told(&[(HEAP, "rd wr um")]).unwrap().0, 1);
        assert!(matches!(told(&[(HEAP, "rd wr wf")]), Err(Error::Changed(_))));
        assert!(matches!(told(&[(other, "rd wr")]), Err(Error::Changed(_))));
    }
}
