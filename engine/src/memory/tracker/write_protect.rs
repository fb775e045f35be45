//! Write protection that the kernel takes off at the first write (userfaultfd, `WP_ASYNC`): it tells by
//! `PAGEMAP_SCAN` of which pages it has.
//!
//! Where nobody watched over an area, because it is new, was moved, or came by exec(2), all pages count as
//! changed. When the userfaultfd is closed, by whose death ever, the kernel forgets all of it: nothing is
//! known then. Kernel: `Documentation/admin-guide/mm/userfaultfd.rst` and `pagemap.rst`, since 6.7.
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use super::{Method, SoFar, Tracker, can_be_watched, pagemap_of};
use crate::error::{Result, kernel_io};
use crate::inventory::{Pid, Vma};
use crate::memory::pages::{self, Pages, REGIONS, USER};
use crate::memory::ranges::{Ranges, joined};
use crate::procfs::smaps::Area;
use crate::sys::pagemap::{self, PRESENT, Region, SWAPPED, WPALLOWED, WRITTEN, Which};
use crate::sys::userfaultfd::{self, Watch};

/// See the head of this file.
#[derive(Debug)]
pub(super) struct WriteProtect;

impl Method for WriteProtect {
    fn watches(&self, of: &Tracker) -> bool {
        File::open(pagemap_of(of.pid)).is_ok_and(|pagemap| is_watched(&pagemap, (0, USER)))
    }

    fn look(&self, of: &Tracker, vmas: &[Vma]) -> Result<(Pages, Ranges)> {
        let pagemap = File::open(pagemap_of(of.pid)).map_err(kernel_io("open"))?;
        let (mut ours, mut changed) = (Ranges::new(), Ranges::new());
        for vma in vmas {
            let area = (vma.start, vma.end);
            let known = can_be_watched(vma) && is_watched(&pagemap, area);
            // Somebody else may watch over it, or nobody be able to: then it changes each time.
            let registered = can_be_watched(vma) && watch(of.fd.as_fd(), &pagemap, area, known);
            if registered {
                ours.push(area);
            }
            if !registered || !known {
                changed.push(area);
            }
        }
        let (pages, mut written) = pages::look(of.pid, vmas, &ours)?;
        changed.append(&mut written);
        Ok((pages, changed))
    }

    fn so_far(&self, of: &Tracker) -> SoFar {
        let Ok(pagemap) = File::open(pagemap_of(of.pid)) else { return SoFar::About(0) };
        let all = vec![(0, USER)];
        // Some may be protected already.
        SoFar::Since(written(&pagemap, &all).unwrap_or(all))
    }
}

fn watch(fd: BorrowedFd<'_>, pagemap: &File, area: (u64, u64), known: bool) -> bool {
    // Areas that mremap(2) was at may be watched no more, and yet have marks left on pages (seen on 6.18):
    // marked, and written all the same, these would never count as written.
    userfaultfd::register(fd, area, Watch::Protected).is_ok()
        && (known || !is_marked(pagemap, area) || userfaultfd::unprotect(fd, area).is_ok())
}

/// Pages of these areas that were written; they are protected from now on.
fn written(pagemap: &File, areas: &Ranges) -> nix::Result<Ranges> {
    let (all, any) = (WPALLOWED | WRITTEN, PRESENT | SWAPPED);
    let which = Which { all, any, protect: true, ..Which::default() };
    let (mut found, mut room) = (Vec::new(), vec![Region::default(); REGIONS]);
    for area in joined(areas) {
        pagemap::scan_all(pagemap.as_fd(), area, which, &mut room, &mut found)?;
    }
    Ok(found.iter().map(|region| (region.start, region.end)).collect())
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
    use super::super::{Changed, Kind, Told};
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
        let mut tracker = Tracker { pid, space, kind, fd, told: Told::default() };
        // So much is always fresh from the kernel.
        let mut room = vec![1_u8; 40 << 20];
        let base = (room.as_ptr().expose_provenance() as u64).next_multiple_of(4096);
        let offset = usize::try_from(base).unwrap() - room.as_ptr().expose_provenance();
        let (backing, flags) = (Backing::Anonymous, Vec::new());
        let end = base + (39 << 20);
        let vma = Vma { start: base, end, prot: 3, shared: false, backing, flags, name: None };
        let own = vec![(base, end)];
        let changed =
            |tracker: &mut Tracker| tracker.look(std::slice::from_ref(&vma)).unwrap().1.since;
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
        let (bytes, ahead) = tracker.ahead();
        assert_eq!(bytes, 3 * 4096);
        assert_eq!(ahead.ranges(), &[(page(3), page(5)), (page(900), page(901))]);
        room[offset + 4 * 4096] = 3;
        let (_, Changed { since, again }) = tracker.look(std::slice::from_ref(&vma)).unwrap();
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
