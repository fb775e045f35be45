//! Which pages of an address space are its own: private ones that are there or swapped out.
//!
//! Pages of files that were never written are the file's; zero pages read as zeros anyway; what was
//! never touched is not there, and stays so. `PAGEMAP_SCAN` tells it in a millisecond for each GiB, if
//! it is not asked which pages are files': for that it looks at each page (ten milliseconds);
//! before 6.7 the entries of `/proc/PID/pagemap` are read one by one, of private areas only
//! (`Documentation/admin-guide/mm/pagemap.rst`).
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;

use super::ranges::{Ranges, intersect};
use crate::error::{Result, kernel, kernel_io};
use crate::inventory::{Backing, Pid, Vma};
use crate::sys::pagemap::{
    self, FILE, GUARD, HUGE, PFNZERO, PRESENT, Region, SWAPPED, WRITTEN, Which, entry,
};

const PAGE: u64 = 4096;
/// How many ranges are asked for at once.
pub(super) const REGIONS: usize = 4096;
/// Anonymous areas of this length are asked about by themselves: no page in them is a file's.
const LARGE: u64 = 4 << 20;
/// What was there is asked for by itself, from so many bytes on.
const WORTH: u64 = 1 << 20;
/// Pages that were written, and are not farther from each other, are asked for together, in bytes.
const NEAR: u64 = 64 * PAGE;
/// What programs have; beyond are the kernel and `[vsyscall]`.
pub(super) const USER: u64 = 0x7fff_ffff_f000;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pages {
    /// To be saved.
    pub(crate) own: Ranges,
    /// Guards (`MADV_GUARD_INSTALL`): touching one is a fault.
    pub(crate) guards: Ranges,
}

/// Whether private pages of it are the space's own. What may be dropped at any moment
/// (`MAP_DROPPABLE`) is dropped now: it holds what must not exist twice, such as the state of a random
/// number generator.
fn private(vma: &Vma) -> bool {
    let droppable = vma.flags.iter().any(|flag| flag == "dp");
    !vma.shared && !droppable && !matches!(vma.backing, Backing::Special(_))
}

/// What is in huge pages where they are wanted. Nobody tells before 6.7.
pub(crate) fn huge(pid: Pid, vmas: &[Vma]) -> Result<Ranges> {
    let wanted = |vma: &&Vma| !vma.shared && vma.flags.iter().any(|flag| flag == "hg");
    let mut areas = vmas.iter().filter(wanted).map(|vma| (vma.start, vma.end)).peekable();
    if areas.peek().is_none() {
        return Ok(Ranges::new());
    }
    let pagemap = File::open(format!("/proc/{pid}/pagemap")).map_err(kernel_io("open"))?;
    let which = Which { all: PRESENT | HUGE, tell: HUGE, ..Which::default() };
    let (mut room, mut found) = (vec![Region::default(); REGIONS], Vec::new());
    let looked = areas.try_for_each(|area| {
        pagemap::scan_all(pagemap.as_fd(), area, which, &mut room, &mut found)
    });
    match looked {
        Err(Errno::ENOTTY | Errno::EINVAL) => Ok(Ranges::new()),
        looked => {
            looked.map_err(kernel("ioctl(PAGEMAP_SCAN)"))?;
            Ok(found.iter().map(|region| (region.start, region.end)).collect())
        }
    }
}

/// Those of a process that stands still.
pub(crate) fn of(pid: Pid, vmas: &[Vma]) -> Result<Pages> {
    look(pid, vmas, &Watched::default()).map(|(pages, _)| pages)
}

/// Areas that a tracker watches over.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// All of them.
    pub(super) areas: Ranges,
    /// Pages that some of them had, and had protected: those that were not written since are still there.
    pub(super) had: Ranges,
}

/// Likewise, and which pages of the areas that are watched were written: they are protected from now on.
pub(super) fn look(pid: Pid, vmas: &[Vma], watched: &Watched) -> Result<(Pages, Ranges)> {
    let pagemap = File::open(format!("/proc/{pid}/pagemap")).map_err(kernel_io("open"))?;
    let parts = parts(vmas, watched);
    let found = match scan(&pagemap, &parts, GUARD) {
        Err(Errno::EINVAL) => scan(&pagemap, &parts, 0),
        found => found,
    };
    let found = match found {
        Ok(found) => found,
        Err(Errno::ENOTTY | Errno::EINVAL) => read(&pagemap, vmas).map_err(kernel_io("read"))?,
        Err(errno) => return Err(kernel("ioctl(PAGEMAP_SCAN)")(errno)),
    };
    let split = |guard: bool, sort: fn(&Vma) -> bool| {
        let of_sort = |region: &&Region| (region.categories & GUARD != 0) == guard;
        let ranges = found.iter().filter(of_sort).map(|region| (region.start, region.end));
        within(ranges, vmas, sort)
    };
    let written = found.iter().filter(|region| region.categories & WRITTEN != 0);
    let written = written.map(|region| (region.start, region.end)).collect();
    Ok((Pages { own: split(false, private), guards: split(true, |_| true) }, written))
}

/// What has to be asked about pages of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// Whether they are a file's.
    Any,
    /// None is.
    Anonymous,
    /// None is, and whether they were written.
    Watched,
    /// All were there, and protected: first only whether they were written, which is told five times as fast.
    Had,
}

/// All that a program may have, cut by what has to be asked.
fn parts(vmas: &[Vma], watched: &Watched) -> Vec<((u64, u64), Sort)> {
    let (mut parts, mut before) = (Vec::<((u64, u64), Sort)>::new(), 0);
    for vma in vmas.iter().filter(|vma| !vma.shared && vma.backing == Backing::Anonymous) {
        let area = (vma.start, vma.end);
        let sort = match watched.areas.binary_search(&area) {
            Ok(_) => Sort::Watched,
            Err(_) if vma.end - vma.start >= LARGE => Sort::Anonymous,
            Err(_) => continue,
        };
        match parts.last_mut() {
            Some((last, of)) if *of == sort && last.1 == vma.start => last.1 = vma.end,
            _ => parts.extend([((before, vma.start), Sort::Any), (area, sort)]),
        }
        before = vma.end;
    }
    parts.push(((before, USER), Sort::Any));
    let parts = parts.into_iter().flat_map(|part| without_had(part, &watched.had));
    parts.filter(|((start, end), _)| start < end).collect()
}

/// Cuts out what was there, if it is long enough to be worth a call.
fn without_had((range, sort): ((u64, u64), Sort), had: &Ranges) -> Vec<((u64, u64), Sort)> {
    let had = if sort == Sort::Watched { intersect(had, &vec![range]) } else { Ranges::new() };
    let (mut parts, mut at) = (Vec::new(), range.0);
    for (start, end) in had.into_iter().filter(|(start, end)| end - start >= WORTH) {
        parts.extend([((at, start), sort), ((start, end), Sort::Had)]);
        at = end;
    }
    parts.push(((at, range.1), sort));
    parts
}

fn scan(pagemap: &File, parts: &[((u64, u64), Sort)], guard: u64) -> nix::Result<Vec<Region>> {
    let mut scan = Scan { pagemap, guard, room: vec![Region::default(); REGIONS], all: Vec::new() };
    parts.iter().try_for_each(|(range, sort)| match sort {
        Sort::Had => scan.had(*range),
        sort => scan.part(*range, *sort),
    })?;
    Ok(scan.all)
}

/// A walk over a page table; what it has found, ascending.
struct Scan<'a> {
    pagemap: &'a File,
    guard: u64,
    room: Vec<Region>,
    all: Vec<Region>,
}

impl Scan<'_> {
    fn part(&mut self, range: (u64, u64), sort: Sort) -> nix::Result<()> {
        let not = if sort == Sort::Any { FILE | PFNZERO } else { PFNZERO };
        let protect = sort == Sort::Watched;
        let tell = PRESENT | self.guard | if protect { WRITTEN } else { 0 };
        let any = PRESENT | SWAPPED | self.guard;
        let which = Which { not, any, tell, protect, ..Which::default() };
        pagemap::scan_all(self.pagemap.as_fd(), range, which, &mut self.room, &mut self.all)
    }

    /// What was not written is there. What was may be gone, and is not protected before that is known: the
    /// kernel would mark what is gone too.
    fn had(&mut self, (mut at, end): (u64, u64)) -> nix::Result<()> {
        let (mut written, which) =
            (Vec::new(), Which { all: WRITTEN, tell: WRITTEN, ..Which::default() });
        pagemap::scan_all(self.pagemap.as_fd(), (at, end), which, &mut self.room, &mut written)?;
        for part in written.chunk_by(|one, next| next.start - one.end <= NEAR) {
            let (Some(first), Some(last)) = (part.first(), part.last()) else { continue };
            self.there(at, first.start);
            self.part((first.start, last.end), Sort::Watched)?;
            at = last.end;
        }
        self.there(at, end);
        Ok(())
    }

    fn there(&mut self, start: u64, end: u64) {
        if start < end {
            self.all.push(Region { start, end, categories: PRESENT });
        }
    }
}

fn read(pagemap: &File, vmas: &[Vma]) -> io::Result<Vec<Region>> {
    let (mut all, mut room) = (Vec::<Region>::new(), vec![0; 512 * 1024]);
    for vma in vmas.iter().filter(|vma| private(vma)) {
        let mut at = vma.start;
        while at < vma.end {
            let wanted = usize::try_from((vma.end - at) / PAGE * 8).unwrap_or(usize::MAX);
            let len = wanted.min(room.len());
            let part = room.get_mut(..len).unwrap_or_default();
            pagemap.read_exact_at(part, at / PAGE * 8)?;
            for entry in part.as_chunks().0.iter().map(|bytes| u64::from_ne_bytes(*bytes)) {
                if entry::is_private(entry) {
                    push(&mut all, at);
                }
                at += PAGE;
            }
        }
    }
    Ok(all)
}

fn push(all: &mut Vec<Region>, at: u64) {
    match all.last_mut() {
        Some(last) if last.end == at => last.end = at + PAGE,
        _ => all.push(Region { start: at, end: at + PAGE, categories: PRESENT }),
    }
}

/// Those of `own` that lie over files.
pub(super) fn of_files(own: &Ranges, vmas: &[Vma]) -> Ranges {
    let over_file = |vma: &Vma| matches!(vma.backing, Backing::File { .. });
    within(own.iter().copied(), vmas, over_file)
}

/// What of `ranges` lies in areas of a sort; both ascend.
fn within(
    ranges: impl Iterator<Item = (u64, u64)>,
    vmas: &[Vma],
    sort: fn(&Vma) -> bool,
) -> Ranges {
    let (mut found, mut vmas) = (Ranges::new(), vmas.iter().filter(|vma| sort(vma)).peekable());
    for (start, end) in ranges {
        while vmas.next_if(|vma| vma.end <= start).is_some() {}
        let mut here = vmas.clone();
        while let Some(vma) = here.next_if(|vma| vma.start < end) {
            let (from, to) = (start.max(vma.start), end.min(vma.end));
            match found.last_mut() {
                Some(last) if last.1 == from => last.1 = to,
                _ => found.push((from, to)),
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(start: u64, end: u64, shared: bool) -> Vma {
        let (backing, flags) = (Backing::Anonymous, Vec::new());
        Vma { start, end, prot: 3, shared, backing, flags, name: None }
    }

    #[test]
    fn what_may_be_dropped_is_not_kept() {
        let droppable = Vma { flags: vec!["dp".into()], ..area(10, 20, false) };
        assert!(private(&area(10, 20, false)) && !private(&droppable));
    }

    #[test]
    fn each_part_is_asked_what_is_not_known() {
        let (small, large) = (0x1000, LARGE);
        let ends = [0x1000, 0x1000 + small, 0x1000 + small + large, 0x2000 + small + large];
        let area = |at: usize| area(ends[at], ends[at + 1], false);
        let vmas = [area(0), area(1), area(2)];
        let [first, large, last] = [0, 1, 2].map(|at| (ends[at], ends[at + 1]));
        let around = |parts: &[((u64, u64), Sort)], end| {
            let all = [&[((0, 0x1000), Sort::Any)], parts, &[((end, USER), Sort::Any)]];
            all.concat()
        };
        let parts = |areas: &[(u64, u64)], had: &[(u64, u64)]| {
            parts(&vmas, &Watched { areas: areas.to_vec(), had: had.to_vec() })
        };
        let plain = parts(&[], &[]);
        let before = ((0, large.0), Sort::Any);
        assert_eq!(plain, [before, (large, Sort::Anonymous), ((large.1, USER), Sort::Any)]);
        let watched = parts(&[first, large], &[]);
        assert_eq!(watched, around(&[((first.0, large.1), Sort::Watched)], large.1));
        let apart = parts(&[first, last], &[]);
        let all = [(first, Sort::Watched), (large, Sort::Anonymous), (last, Sort::Watched)];
        assert_eq!(apart, around(&all, last.1));
        // What is little is asked for like the rest.
        let (start, end) = (large.0 + 0x3000, large.1 - 0x1000);
        let had = parts(&[large], &[first, (large.0, large.0 + 0x1000), (start, end)]);
        let of_large = [
            ((0, large.0), Sort::Any),
            ((large.0, start), Sort::Watched),
            ((start, end), Sort::Had),
            ((end, large.1), Sort::Watched),
            ((large.1, USER), Sort::Any),
        ];
        assert_eq!(had, of_large);
    }

    #[test]
    fn ranges_are_cut_to_private_areas() {
        let vmas = [area(10, 20, false), area(20, 30, true), area(30, 40, false)];
        let found = within([(5, 12), (15, 35), (38, 50)].into_iter(), &vmas, private);
        assert_eq!(found, [(10, 12), (15, 20), (30, 35), (38, 40)]);
    }

    #[test]
    fn only_what_was_written_is_found() {
        let len = 64 * PAGE;
        // So much is always fresh from the kernel: less may be memory that was used and is zeroed.
        let mut room = vec![0_u8; 40 << 20];
        let base = (room.as_ptr().expose_provenance() as u64).next_multiple_of(PAGE);
        let offset = usize::try_from(base).unwrap() - room.as_ptr().expose_provenance();
        for page in [3, 4, 9] {
            room[offset + page * 4096] = 1;
        }
        let vmas = [area(base, base + len - PAGE, false)];
        let me = Pid(std::process::id().cast_signed());
        let page = |number: u64| base + number * PAGE;
        // The allocator may have touched the first and the last page.
        let inner = |ranges: Ranges| -> Ranges {
            ranges.into_iter().filter(|range| range.0 > page(1) && range.1 < page(60)).collect()
        };
        let expected = [(page(3), page(5)), (page(9), page(10))];
        assert_eq!(inner(of(me, &vmas).unwrap().own), expected);
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let read = read(&pagemap, &vmas).unwrap();
        let read = read.into_iter().map(|region| (region.start, region.end)).collect();
        assert_eq!(inner(read), expected, "as before 6.7");
    }
}
