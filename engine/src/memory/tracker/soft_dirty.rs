//! Marks that the kernel puts on pages when they are written, until all are taken off at once (`clear_refs`).
//!
//! The descriptor is the space's pagemap: after exec(2) or exit(2) there is nothing more to be read by it.
//! Anybody may take the marks off, and what was written before that would be missed. So the last page of the
//! environment, where hardly anybody writes, is marked again at once: a mark that is gone says that somebody
//! has. A page of zeros that was read where a page was dropped has no mark, but no owner either.
//!
//! mremap(2) moves a whole page table without marking what is in it. So of each block that has one, one page's
//! frame is remembered ([`Anchors`]): if another frame is there, or that page was written, all of the block has
//! changed. KSM exchanges pages for equal ones without marks: where it may, all changes.
//!
//! Kernel: `CONFIG_MEM_SOFT_DIRTY`, `Documentation/admin-guide/mm/soft-dirty.rst`, `fs/proc/task_mmu.c`.
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::uio::pread;

use super::{Method, SoFar, Tracker, can_be_watched, pagemap_of};
use crate::error::{Result, kernel, kernel_io};
use crate::features::has_soft_dirty;
use crate::inventory::{Pid, Vma};
use crate::memory::pages::{self, Pages};
use crate::memory::ranges::{Ranges, intersect, near};
use crate::procfs;
use crate::procfs::smaps;
use crate::procfs::stat::Stat;
use crate::sys::pagemap::entry::{self, EXCLUSIVE, FRAME, MARKED, PRESENT};

const PAGE: u64 = 4096;
const BLOCK: u64 = 2 << 20;
/// Ranges that are not farther apart than so many bytes are read in one go.
const NEAR: u64 = 512 * PAGE;
/// How many entries are read in one go.
const ENTRIES: u64 = 64 << 10;
/// What takes all marks off: `CLEAR_REFS_SOFT_DIRTY`.
const CLEAR: &str = "4";

/// See the head of this file.
#[derive(Debug)]
pub(super) struct SoftDirty;

/// The descriptor for a process. `None`: the kernel puts no marks.
pub(crate) fn begin(pid: Pid) -> Result<Option<OwnedFd>> {
    if !has_soft_dirty() {
        return Ok(None);
    }
    let pagemap = File::open(pagemap_of(pid)).map_err(kernel_io("open"))?;
    Ok(Some(pagemap.into()))
}

impl Method for SoftDirty {
    fn watches(&self, of: &Tracker) -> bool {
        let Some(address) = sentinel(of.pid) else { return false };
        let mut entry = [0; 8];
        let read = pread(of.fd.as_fd(), &mut entry, offset(address));
        read == Ok(entry.len()) && u64::from_ne_bytes(entry) & MARKED != 0
    }

    fn look(&self, of: &mut Tracker, vmas: &[Vma], _: &Ranges) -> Result<(Pages, Ranges)> {
        let pages = pages::of(of.pid, vmas)?;
        let watched = |vma: &&Vma| can_be_watched(vma) && !is_merged(vma);
        let (watched, others): (Vec<_>, Vec<_>) = vmas.iter().partition(watched);
        let areas = |vmas: &[&Vma]| vmas.iter().map(|vma| (vma.start, vma.end)).collect::<Ranges>();
        let own = intersect(&pages.own, &areas(&watched));
        let mut entries = Vec::new();
        each(of, &own, &mut |address, entry| entries.push((address, entry)))
            .map_err(kernel("read"))?;
        let mut changed = areas(&others);
        for block in entries.chunk_by(|one, next| block_of(one.0) == block_of(next.0)) {
            changed.append(&mut changed_in(block, &of.anchors));
        }
        of.anchors = Anchors::of(&entries);
        let file = format!("/proc/{}/clear_refs", of.pid);
        fs::write(file, CLEAR).map_err(kernel_io("write"))?;
        if let Err(error) = mark_sentinel(of.pid) {
            tracing::debug!(%error, "next time, all counts as changed");
        }
        Ok((pages, changed))
    }

    fn expected(&self, of: &Tracker) -> u64 {
        let maps = procfs::text(format!("/proc/{}/maps", of.pid)).unwrap_or_default();
        let areas = smaps::parse(&maps).unwrap_or_default();
        let private = areas.iter().filter(|area| !area.shared && area.inode == 0);
        let private = private.map(|area| (area.start, area.end)).collect();
        let mut bytes = 0;
        let is_written = |entry| entry & MARKED != 0 && entry::is_private(entry);
        let read = each(of, &private, &mut |_, entry| bytes += u64::from(is_written(entry)) * PAGE);
        read.map_or(0, |()| bytes)
    }

    /// Between reading the marks and taking them off, it would go on writing.
    fn so_far(&self, _: &Tracker) -> Option<SoFar> {
        None
    }
}

/// Whether KSM may exchange its pages.
fn is_merged(vma: &Vma) -> bool {
    vma.flags.iter().any(|flag| flag == "mg")
}

/// What one page table maps.
fn block_of(address: u64) -> u64 {
    address / BLOCK
}

/// One page of each block, by the block: its address, and its frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Anchors(BTreeMap<u64, (u64, u64)>);

impl Anchors {
    /// The last in each block of what is there: as good as any.
    fn of(entries: &[(u64, u64)]) -> Self {
        let there = entries.iter().filter(|(_, entry)| entry & PRESENT != 0 && frame(*entry) != 0);
        Self(there.map(|(at, entry)| (block_of(*at), (*at, frame(*entry)))).collect())
    }

    /// As numbers: address and frame in turn.
    #[must_use]
    pub fn numbers(&self) -> Vec<u64> {
        self.0.values().flat_map(|(address, frame)| [*address, *frame]).collect()
    }

    /// Of such numbers.
    #[must_use]
    pub fn of_numbers(numbers: &[u64]) -> Self {
        let anchors = numbers.as_chunks().0.iter();
        Self(anchors.map(|[address, frame]| (block_of(*address), (*address, *frame))).collect())
    }
}

/// Zero: nobody tells us.
fn frame(entry: u64) -> u64 {
    entry & FRAME
}

/// Which pages of a block have changed.
fn changed_in(block: &[(u64, u64)], anchors: &Anchors) -> Ranges {
    let anchor = block.first().and_then(|(at, _)| anchors.0.get(&block_of(*at)));
    let is_anchor = |(at, entry): &(u64, u64)| {
        Some(&(*at, frame(*entry))) == anchor && entry & (PRESENT | MARKED) == PRESENT
    };
    let stayed = block.iter().any(is_anchor);
    let mut changed = Ranges::new();
    for (at, _) in block.iter().filter(|(_, entry)| !stayed || has_changed(*entry)) {
        push(&mut changed, *at);
    }
    changed
}

/// What is mapped by others too may be the page of zeros: nobody is told its number.
fn has_changed(entry: u64) -> bool {
    entry & MARKED != 0 || entry & (PRESENT | EXCLUSIVE) == PRESENT
}

/// Visits the entries of these ranges, and of some in between.
fn each(of: &Tracker, ranges: &Ranges, visit: &mut dyn FnMut(u64, u64)) -> nix::Result<()> {
    let mut room = vec![0; 8 * usize::try_from(ENTRIES).unwrap_or(0)];
    for (mut at, end) in near(ranges, NEAR) {
        while at < end {
            let len = usize::try_from((end - at) / PAGE * 8).unwrap_or(usize::MAX).min(room.len());
            let part = room.get_mut(..len).unwrap_or_default();
            // Nothing comes of a space that is gone.
            let read @ 8.. = pread(of.fd.as_fd(), part, offset(at))? else {
                return Err(Errno::ESRCH);
            };
            for entry in part.as_chunks().0.iter().take(read / 8) {
                visit(at, u64::from_ne_bytes(*entry));
                at += PAGE;
            }
        }
    }
    Ok(())
}

fn push(all: &mut Ranges, at: u64) {
    match all.last_mut() {
        Some(last) if last.1 == at => last.1 += PAGE,
        _ => all.push((at, at + PAGE)),
    }
}

fn offset(address: u64) -> i64 {
    (address / PAGE * 8).cast_signed()
}

/// The last byte of the environment.
fn sentinel(pid: Pid) -> Option<u64> {
    let text = procfs::text(format!("/proc/{pid}/stat")).ok()?;
    Stat::parse(&text).ok()?.environment_end().ok()?.checked_sub(1)
}

/// Writes there what is there.
fn mark_sentinel(pid: Pid) -> io::Result<()> {
    let address = sentinel(pid).ok_or(Errno::EFAULT)?;
    let memory = File::options().read(true).write(true).open(format!("/proc/{pid}/mem"))?;
    let mut byte = [0];
    memory.read_exact_at(&mut byte, address)?;
    memory.write_all_at(&byte, address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pagemap::entry::SWAPPED;

    #[test]
    fn what_has_no_mark_and_one_owner_has_not_changed() {
        assert!(has_changed(PRESENT | EXCLUSIVE | MARKED) && has_changed(SWAPPED | MARKED));
        assert!(has_changed(PRESENT), "a page of zeros");
        assert!(!has_changed(PRESENT | EXCLUSIVE) && !has_changed(SWAPPED));
    }

    #[test]
    fn what_was_moved_as_a_whole_has_changed() {
        let there = PRESENT | EXCLUSIVE;
        let entries = [(BLOCK, there | 7), (BLOCK + PAGE, there | 8), (3 * BLOCK, there | 9)];
        let anchors = Anchors::of_numbers(&Anchors::of(&entries).numbers());
        let (both, last) = (vec![(BLOCK, BLOCK + 2 * PAGE)], entries[1].1);
        let changed =
            |first, second| changed_in(&[(BLOCK, there | first), (BLOCK + PAGE, second)], &anchors);
        assert_eq!(changed(7, last), []);
        assert_eq!(changed(7 | MARKED, last), [(BLOCK, BLOCK + PAGE)]);
        assert_eq!(changed(7, there | 5), both, "another frame");
        assert_eq!(changed(7, last | MARKED), both, "who knows");
        assert_eq!(changed_in(&entries[..2], &Anchors::default()), both, "nothing was known");
        let hidden = entries.map(|(at, entry)| (at, entry & !FRAME));
        assert_eq!(changed_in(&hidden[..2], &Anchors::of(&hidden)), both, "nobody tells frames");
    }

    #[test]
    fn ranges_near_each_other_are_read_together() {
        let far = NEAR + PAGE;
        let ranges = vec![(0, PAGE), (2 * PAGE, 3 * PAGE), (3 * PAGE + far, 4 * PAGE + far)];
        assert_eq!(near(&ranges, NEAR), [(0, 3 * PAGE), (3 * PAGE + far, 4 * PAGE + far)]);
    }
}
