//! Turns a blank's memory into the image's: clear, map, fill, protect, and the kernel's numbers.
//!
//! The vdso's pages move as a group, first aside and then to where the program remembers them: they
//! are the only mappings that cannot be made anew. A blank that was forked from finished memory
//! keeps the areas that are the same in both. Kernel: mremap(2), `PR_SET_MM_MAP`, `mm/mremap.c`.
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use nix::libc;

use super::Restorer;
use super::blanks::{Content, SpecialPlaces, died, done};
use crate::error::{Error, Result, kernel_io};
use crate::image::Contents;
use crate::inventory::{Backing, ObjectId, OpenFileId, Pid, Space, SpaceId, Special, Vma};
use crate::memory::areas;
use crate::memory::fill::Fill;
use crate::memory::missing::Missing;
use crate::memory::ranges::{Ranges, intersect, without};
use crate::remote::{Arg, Batch, Caller, RemoteFd};
use crate::tracee::vdso_image_end;

/// Files planted for mapping at one time.
const FILES: usize = 200;
/// Where user memory ends, and from where on it may be mapped at all.
const TOP: u64 = 0x7fff_ffff_f000;
const BOTTOM: u64 = 0x1000;
/// `include/uapi/linux/prctl.h`.
const PR_SET_MM: i32 = 35;
const PR_SET_MM_MAP: i32 = 14;
const MREMAP: i32 = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;

impl Restorer<'_> {
    /// The whole step.
    pub(super) fn map(&mut self, id: SpaceId, pid: Pid) -> Result<()> {
        let inventory = self.inventory;
        let damaged = || Error::Record(format!("space {id}"), None);
        let space = inventory.spaces.get(&id).ok_or_else(damaged)?;
        let kept = self.kept(pid, space)?;
        self.clear(pid, space, &kept)?;
        let new: Vec<_> = space.vmas.iter().filter(|vma| !is_special(vma)).collect();
        let new: Vec<_> = new.into_iter().filter(|vma| !kept.contains(&vma.start)).collect();
        self.map_areas(pid, &new)?;
        self.unguard(pid, space, &kept)?;
        self.widen(pid, space, &new)?;
        self.fill(id, pid, space, &kept)?;
        let mut batch = Batch::default();
        space.guards.iter().for_each(|range| areas::guard(*range, true, &mut batch));
        new.iter().for_each(|vma| areas::finish(vma, &mut batch));
        done(&self.blanks.caller(tid(pid))?.perform(&batch)?)?;
        self.layout(pid, space)?;
        self.blanks.leader_mut(pid)?.content = Content::Image(id);
        Ok(())
    }

    /// Starts of the areas that the blank has already.
    fn kept(&self, pid: Pid, space: &Space) -> Result<BTreeSet<u64>> {
        let Content::Image(before) = self.blanks.leader(pid)?.content else {
            return Ok(BTreeSet::new());
        };
        let before = self.inventory.spaces.get(&before).into_iter().flat_map(|b| &b.vmas);
        let before: BTreeMap<u64, &Vma> = before.map(|vma| (vma.start, vma)).collect();
        let same = |vma: &&Vma| {
            !is_special(vma)
                && areas::inherited(vma)
                && before.get(&vma.start).is_some_and(|other| self.same(vma, other))
        };
        Ok(space.vmas.iter().filter(same).map(|vma| vma.start).collect())
    }

    fn same(&self, one: &Vma, other: &Vma) -> bool {
        let object = |vma: &Vma| self.under(vma).map(|(object, offset)| (Some(object), offset));
        let (a, b) = (object(one), object(other));
        let plain = |vma: &Vma| Vma { backing: Backing::Anonymous, ..vma.clone() };
        a == b && plain(one) == plain(other)
    }

    fn under(&self, vma: &Vma) -> Option<(ObjectId, u64)> {
        match vma.backing {
            Backing::File { open_file, offset } => {
                self.inventory.open_files.get(&open_file).map(|f| (f.refers_to().0, offset))
            }
            _ => None,
        }
    }

    /// Unmaps all that does not belong, and moves the kernel's own mappings to their place.
    fn clear(&mut self, pid: Pid, space: &Space, kept: &BTreeSet<u64>) -> Result<()> {
        let now = self.blanks.leader(pid)?.special.clone();
        let wanted = places(space);
        let (area, parking) = (self.blanks.area.address(), self.parking);
        let area_end = area + self.blanks.area.len() as u64;
        let mut batch = Batch::default();
        let low = now.iter().map(|(_, start, _)| *start).min().unwrap_or(0);
        let parked: SpecialPlaces = now
            .iter()
            .map(|&(what, s, e)| (what, parking + (s - low), parking + (e - low)))
            .collect();
        now.iter().zip(&parked).for_each(|(from, to)| relocate(*from, to.1, &mut batch));
        let mut stay: Ranges = parked.iter().map(|&(_, start, end)| (start, end)).collect();
        stay.push((area, area_end));
        stay.extend(
            space.vmas.iter().filter(|v| kept.contains(&v.start)).map(|v| (v.start, v.end)),
        );
        stay.sort_unstable();
        for (start, end) in without(&vec![(BOTTOM, TOP)], &stay) {
            let args = [start.cast_signed().into(), (end - start).cast_signed().into()];
            batch.call("munmap", libc::SYS_munmap, args);
        }
        for &from in &parked {
            match wanted.iter().find(|(what, ..)| *what == from.0) {
                Some(&(_, start, end)) if end - start == from.2 - from.1 => {
                    relocate(from, start, &mut batch);
                }
                // The program had unmapped it.
                None => {
                    let args = [from.1, from.2 - from.1].map(|w| Arg::from(w.cast_signed()));
                    batch.call("munmap", libc::SYS_munmap, args);
                }
                Some(_) => return Err(Error::Record("vdso".into(), None)),
            }
        }
        done(&self.blanks.caller(tid(pid))?.perform(&batch)?)?;
        self.blanks.leader_mut(pid)?.special = wanted;
        stubs(pid, space)
    }

    /// Maps them, a window of files at a time.
    fn map_areas(&mut self, pid: Pid, vmas: &[&Vma]) -> Result<()> {
        let mut loan = self.blanks.caller(tid(pid))?;
        let mut rest = vmas;
        while !rest.is_empty() {
            let mut files: Vec<OpenFileId> = Vec::new();
            let fits = |vma: &&&Vma| match vma.backing {
                Backing::File { open_file, .. } if !files.contains(&open_file) => {
                    files.push(open_file);
                    files.len() <= FILES
                }
                _ => true,
            };
            let count = rest.iter().take_while(fits).count();
            files.truncate(FILES);
            let (now, later) = rest.split_at(count);
            let ours = self.files(&files)?;
            self.transport.lend(&mut loan, &ours, |numbers, batch| {
                let numbers: BTreeMap<_, _> = files.iter().zip(numbers).collect();
                for vma in now {
                    let file = match &vma.backing {
                        Backing::File { open_file, .. } => numbers.get(open_file).map(|n| **n),
                        _ => None,
                    };
                    areas::map(vma, file, batch);
                }
            })?;
            rest = later;
        }
        Ok(())
    }

    /// Our descriptors of these open files.
    pub(super) fn files(&self, ids: &[OpenFileId]) -> Result<Vec<BorrowedFd<'_>>> {
        ids.iter().map(|id| self.file(*id)).collect()
    }

    /// Sees to it that what was in huge pages is filled into huge pages.
    fn widen(&mut self, pid: Pid, space: &Space, new: &[&Vma]) -> Result<()> {
        let new: Ranges = new.iter().map(|vma| (vma.start, vma.end)).collect();
        let mut batch = Batch::default();
        intersect(&space.huge, &new).into_iter().for_each(|range| areas::huge(range, &mut batch));
        done(&self.blanks.caller(tid(pid))?.perform(&batch)?)
    }

    /// Takes away those of its maker's guards that it inherited and has not.
    fn unguard(&mut self, pid: Pid, space: &Space, kept: &BTreeSet<u64>) -> Result<()> {
        let Content::Image(before) = self.blanks.leader(pid)?.content else { return Ok(()) };
        let before = self.inventory.spaces.get(&before).map(|before| &before.guards);
        let kept = space.vmas.iter().filter(|vma| kept.contains(&vma.start));
        let kept: Ranges = kept.map(|vma| (vma.start, vma.end)).collect();
        let inherited = before.map(|before| intersect(before, &kept)).unwrap_or_default();
        let mut batch = Batch::default();
        for range in without(&inherited, &space.guards) {
            areas::guard(range, false, &mut batch);
        }
        done(&self.blanks.caller(tid(pid))?.perform(&batch)?)
    }

    /// Streams the space's bytes into the blank.
    fn fill(&mut self, id: SpaceId, pid: Pid, space: &Space, kept: &BTreeSet<u64>) -> Result<()> {
        let before = match self.blanks.leader(pid)?.content {
            Content::Image(before) => self.filled.get(&before).cloned().unwrap_or_default(),
            Content::Ours => Ranges::new(),
        };
        let private = |vma: &&Vma| kept.contains(&vma.start) && !vma.shared;
        let kept: Ranges =
            space.vmas.iter().filter(private).map(|vma| (vma.start, vma.end)).collect();
        let inherited = intersect(&before, &kept);
        let areas = (space.vmas.as_slice(), &space.huge);
        let missing = Missing::of(&mut self.blanks.caller(tid(pid))?, areas, &inherited)?;
        let mut fill = Fill::new(pid, &space.vmas, &inherited, missing);
        self.image.scatter(Contents::Space(id), &|address, bytes| fill.put(address, bytes))?;
        let filled = fill.settle();
        // What shows the parent's pages, or the file's, but is to read as zeros.
        for (start, end) in without(&space.written, &filled) {
            fill.zero(start, end)?;
        }
        let mut batch = Batch::default();
        for (start, end) in without(&without(&inherited, &filled), &space.written) {
            let [start, len] = [start, end - start].map(|word| Arg::from(word.cast_signed()));
            batch.call("madvise", libc::SYS_madvise, [start, len, libc::MADV_DONTNEED.into()]);
        }
        done(&self.blanks.caller(tid(pid))?.perform(&batch)?)?;
        self.filled.insert(id, filled);
        Ok(())
    }

    /// What /proc and brk(2) go by, the executable among it.
    fn layout(&mut self, pid: Pid, space: &Space) -> Result<()> {
        let same_exe = self.has_exe(pid, space)?;
        let exe = self.file(space.exe)?;
        let mut loan = self.blanks.caller(tid(pid))?;
        let numbers = self.transport.give(&mut loan, &[exe])?;
        let exe = numbers.first().copied().unwrap_or(RemoteFd(-1));
        // The auxiliary vector lies where the batch's first argument will: both are one buffer.
        let auxv_at = loan.block().data_address(MAP_BYTES);
        let len = u32::try_from(space.layout.auxv.len()).unwrap_or(0);
        let words = space.layout.words.iter().copied().chain([auxv_at]);
        let mut bytes: Vec<u8> = words.flat_map(u64::to_ne_bytes).collect();
        bytes.extend(len.to_ne_bytes());
        let exe_now = if same_exe { -1 } else { exe.0 };
        bytes.extend(exe_now.to_ne_bytes());
        bytes.resize(MAP_BYTES, 0);
        bytes.extend(&space.layout.auxv);
        let mut batch = Batch::default();
        let size = size_of::<u64>() * 12 + 8;
        let args = [
            PR_SET_MM.into(),
            PR_SET_MM_MAP.into(),
            Arg::In(bytes),
            i64::try_from(size).unwrap_or_default().into(),
            0.into(),
        ];
        batch.call("prctl", libc::SYS_prctl, args);
        batch.call("close", libc::SYS_close, [exe.into()]);
        done(&loan.perform(&batch)?).map_err(|error| match error {
            Error::Kernel(call, errno) => died(call, pid)(errno),
            other => other,
        })
    }
}

impl Restorer<'_> {
    /// Whether its maker's executable, which it has, is its own: while that is mapped it cannot be
    /// exchanged, not even for itself.
    fn has_exe(&self, pid: Pid, space: &Space) -> Result<bool> {
        let Content::Image(before) = self.blanks.leader(pid)?.content else { return Ok(false) };
        let object = |id| {
            let file = self.inventory.open_files.get(&id)?;
            self.inventory.objects.get(&file.refers_to().0)
        };
        let before = self.inventory.spaces.get(&before).and_then(|before| object(before.exe));
        Ok(before.is_some() && before == object(space.exe))
    }
}

/// Writes what a checkpoint left behind the vdso's image: code in which interrupted calls wait for
/// the rest of their time.
fn stubs(pid: Pid, space: &Space) -> Result<()> {
    let end = vdso_image_end(&space.vdso).unwrap_or(space.vdso.len());
    let stubs = space.vdso.get(end..).unwrap_or_default();
    let place = places(space).into_iter().find(|(what, ..)| *what == Special::Vdso);
    let Some((_, start, _)) = place else { return Ok(()) };
    let path = format!("/proc/{pid}/mem");
    let memory = std::fs::File::options().read(true).write(true).open(path);
    let memory = memory.map_err(kernel_io("open"))?;
    // It may have its maker's, whose memory it was forked from.
    let (mut now, at) = (vec![0; stubs.len()], start + end as u64);
    memory.read_exact_at(&mut now, at).map_err(kernel_io("read"))?;
    if now == stubs {
        return Ok(());
    }
    memory.write_all_at(stubs, at).map_err(kernel_io("write"))
}

/// Room for `struct prctl_mm_map` (104 bytes) before what it points to.
const MAP_BYTES: usize = 112;

/// The leader.
pub(super) fn tid(pid: Pid) -> crate::inventory::Tid {
    crate::inventory::Tid(pid.0)
}

fn is_special(vma: &Vma) -> bool {
    matches!(vma.backing, Backing::Special(_))
}

fn places(space: &Space) -> SpecialPlaces {
    let place = |vma: &Vma| match vma.backing {
        Backing::Special(what) => Some((what, vma.start, vma.end)),
        _ => None,
    };
    space.vmas.iter().filter_map(place).collect()
}

fn relocate((_, start, end): (Special, u64, u64), to: u64, batch: &mut Batch) {
    if start != to {
        let [start, len, to] = [start, end - start, to].map(|w| Arg::from(w.cast_signed()));
        batch.call("mremap", libc::SYS_mremap, [start, len.clone(), len, MREMAP.into(), to]);
    }
}

/// The kernel's own mappings of a process, from its maps.
pub(super) fn special(maps: &str) -> SpecialPlaces {
    let names = [
        ("[vdso]", Special::Vdso),
        ("[vvar]", Special::Vvar),
        ("[vvar_vclock]", Special::VvarVclock),
    ];
    let place = |line: &str| {
        let name = line.split_whitespace().next_back()?;
        let (_, what) = names.iter().find(|(text, _)| *text == name)?;
        super::hole::own(line).next().map(|(start, end)| (*what, start, end))
    };
    maps.lines().filter_map(place).collect()
}
