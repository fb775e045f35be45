//! Write protection that the kernel takes off at the first write (userfaultfd, `WP_ASYNC`): it tells by
//! `PAGEMAP_SCAN` of which pages it has.
//!
//! Where nobody watched over an area, because it is new, was moved, or came by exec(2), all pages count as
//! changed. When the userfaultfd is closed, by whose death ever, the kernel forgets all of it: nothing is
//! known then. Kernel: `Documentation/admin-guide/mm/userfaultfd.rst` and `pagemap.rst`, since 6.7.
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use super::{Method, SoFar, Tracker, can_be_watched, pagemap_of};
use crate::error::{Result, kernel_io};
use crate::inventory::{Pid, Vma};
use crate::memory::pages::{self, Pages, REGIONS, USER, Watched};
use crate::memory::ranges::{Ranges, intersect, joined};
use crate::procfs::smaps::Area;
use crate::sys::pagemap::{
    self, GUARD, PFNZERO, PRESENT, Region, SWAPPED, WPALLOWED, WRITTEN, Which,
};
use crate::sys::userfaultfd::{self, Watch};

/// See the head of this file.
#[derive(Debug)]
pub(super) struct WriteProtect;

impl Method for WriteProtect {
    fn watches(&self, of: &Tracker) -> bool {
        File::open(pagemap_of(of.pid)).is_ok_and(|pagemap| is_watched(&pagemap, (0, USER)))
    }

    fn look(&self, of: &mut Tracker, vmas: &[Vma], had: &Ranges) -> Result<(Pages, Ranges)> {
        let pagemap = File::open(pagemap_of(of.pid)).map_err(kernel_io("open"))?;
        let (mut ours, mut since, mut changed) = (Ranges::new(), Ranges::new(), Ranges::new());
        for vma in vmas {
            let area = (vma.start, vma.end);
            let known = can_be_watched(vma) && is_watched(&pagemap, area);
            // Somebody else may watch over it, or nobody be able to: then it changes each time.
            let registered = can_be_watched(vma) && watch(of.fd.as_fd(), &pagemap, area, known);
            if registered {
                ours.push(area);
            }
            (if registered && known { &mut since } else { &mut changed }).push(area);
        }
        let watched = Watched { areas: ours, had: intersect(had, &since) };
        let (pages, mut written) = pages::look(of.pid, vmas, &watched)?;
        changed.append(&mut written);
        Ok((pages, changed))
    }

    fn expected(&self, of: &Tracker) -> u64 {
        let Ok(pagemap) = File::open(pagemap_of(of.pid)) else { return 0 };
        let which = Which { all: WPALLOWED | WRITTEN, any: PRESENT | SWAPPED, ..Which::default() };
        let (mut found, mut room) = (Vec::new(), vec![Region::default(); REGIONS]);
        let scanned = pagemap::scan_all(pagemap.as_fd(), (0, USER), which, &mut room, &mut found);
        let bytes = found.iter().map(|region| region.end - region.start).sum();
        if scanned.is_ok() { bytes } else { 0 }
    }

    fn so_far(&self, of: &Tracker) -> Option<SoFar> {
        let pagemap = File::open(pagemap_of(of.pid)).ok()?;
        Some(match all(&pagemap, GUARD) {
            Ok((written, had)) => SoFar { written, had },
            // Before 6.16: what is there may be guards.
            Err(Errno::EINVAL) => {
                let written = all(&pagemap, 0).map(|(written, _)| written);
                SoFar { written: written.unwrap_or_else(|_| everything()), had: Ranges::new() }
            }
            // Some may be protected already.
            Err(_) => SoFar { written: everything(), had: Ranges::new() },
        })
    }
}

fn everything() -> Ranges {
    vec![(0, USER)]
}

/// Of all areas that are watched, which pages were written, which are protected from now on; and all pages
/// that there are.
fn all(pagemap: &File, guard: u64) -> nix::Result<(Ranges, Ranges)> {
    let (any, tell) = (PRESENT | SWAPPED, PRESENT | WRITTEN);
    let not = PFNZERO | guard;
    let which = Which { not, all: WPALLOWED, any, tell, protect: true, ..Which::default() };
    let (mut found, mut room) = (Vec::new(), vec![Region::default(); REGIONS]);
    pagemap::scan_all(pagemap.as_fd(), (0, USER), which, &mut room, &mut found)?;
    let range = |region: &Region| (region.start, region.end);
    let written = found.iter().filter(|region| region.categories & WRITTEN != 0).map(range);
    let had = found.iter().map(range).collect();
    Ok((written.collect(), joined(&had)))
}

fn watch(fd: BorrowedFd<'_>, pagemap: &File, area: (u64, u64), known: bool) -> bool {
    // Areas that mremap(2) was at may be watched no more, and yet have marks left on pages (seen on 6.18):
    // marked, and written all the same, these would never count as written.
    userfaultfd::register(fd, area, Watch::Protected).is_ok()
        && (known || !is_marked(pagemap, area) || userfaultfd::unprotect(fd, area).is_ok())
}

/// Whether a page counts as not written.
fn is_marked(pagemap: &File, area: (u64, u64)) -> bool {
    let any = PRESENT | SWAPPED;
    let which = Which { not: WRITTEN, any, one: true, ..Which::default() };
    !matches!(pagemap::scan(pagemap.as_fd(), area, which, &mut [Region::default()]), Ok((0, _)))
}

/// Whether writes to a range are watched, and go on by themselves.
fn is_watched(pagemap: &File, range: (u64, u64)) -> bool {
    let which = Which { all: WPALLOWED, one: true, ..Which::default() };
    matches!(pagemap::scan(pagemap.as_fd(), range, which, &mut [Region::default()]), Ok((1, _)))
}

/// Areas that are only watched for writes are as any others, whoever does it: it is no state of the program's.
/// Whether that is all that a userfaultfd does with any of them.
pub(crate) fn forget_watching(pid: Pid, areas: &mut [Area<'_>]) -> bool {
    let mut pagemap = None;
    for area in areas.iter_mut().filter(|area| area.flags.contains(&"uw")) {
        let pagemap = pagemap.get_or_insert_with(|| File::open(pagemap_of(pid)));
        match pagemap {
            Ok(pagemap) if is_watched(pagemap, (area.start, area.end)) => {
                area.flags.retain(|flag| *flag != "uw");
            }
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::{Asked, Changed, Kind, Told};
    use super::*;
    use crate::inventory::{Backing, SpaceId};
    use crate::remote::{Batch, Caller, RemoteFd};
    use crate::sys::here::Here;
    use nix::libc::SYS_userfaultfd;

    #[test]
    fn only_what_was_written_since_has_changed() {
        let mut batch = Batch::default();
        batch.call("userfaultfd", SYS_userfaultfd, [1.into()]);
        let number = Here.perform(&batch).unwrap()[0].value().unwrap();
        let fd = Here.steal(RemoteFd(i32::try_from(number).unwrap())).unwrap();
        userfaultfd::agree(fd.as_fd(), userfaultfd::TRACKING).unwrap();
        let pid = Pid(std::process::id().cast_signed());
        let (space, kind) = (SpaceId(0), Kind::WriteProtect);
        let mut tracker = Tracker { told: Told::default(), ..Tracker::new(pid, space, kind, fd) };
        // So much is always fresh from the kernel.
        let mut room = vec![1_u8; 40 << 20];
        let base = (room.as_ptr().expose_provenance() as u64).next_multiple_of(4096);
        let offset = usize::try_from(base).unwrap() - room.as_ptr().expose_provenance();
        let (backing, flags) = (Backing::Anonymous, Vec::new());
        let end = base + (39 << 20);
        let vma = Vma { start: base, end, prot: 3, shared: false, backing, flags, name: None };
        let own = vec![(base, end)];
        let look = |tracker: &mut Tracker, before: &Asked| {
            tracker.look(std::slice::from_ref(&vma), before).unwrap()
        };
        let changed = |tracker: &mut Tracker| look(tracker, &Asked::default()).1.since;
        assert!(!tracker.watches());
        assert_eq!(changed(&mut tracker), own, "nothing was known before");
        let mut smaps = [Area { start: base, end, flags: vec!["rd", "uw"], ..Area::default() }];
        assert!(tracker.watches() && forget_watching(pid, &mut smaps));
        assert_eq!(smaps[0].flags, ["rd"]);
        assert_eq!(changed(&mut tracker), own, "no image was taken since");
        tracker.told = Told::default();
        assert_eq!(changed(&mut tracker), []);
        for page in [3, 4, 900] {
            room[offset + page * 4096 + 17] = 2;
        }
        let page = |number: u64| base + number * 4096;
        let before = tracker.ask(39 << 20);
        assert_eq!(before.changed, 3 * 4096);
        assert_eq!(before.ahead.ranges(), &[(page(3), page(5)), (page(900), page(901))]);
        assert_eq!(before.had, own);
        room[offset + 4 * 4096] = 3;
        let (pages, Changed { since, again }) = look(&mut tracker, &before);
        assert_eq!(pages.own, own);
        assert_eq!(since, [(page(3), page(5)), (page(900), page(901))], "since the last image");
        assert_eq!(again, [(page(4), page(5))], "since they were copied");
        tracker.told = Told::default();
        assert_eq!(changed(&mut tracker), []);
        drop(tracker);
        smaps[0].flags.push("uw");
        assert!(!forget_watching(pid, &mut smaps), "who closes it undoes all");
        assert_eq!(room[offset + 900 * 4096 + 17], 2);
    }
}
