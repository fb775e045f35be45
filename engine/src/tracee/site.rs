//! Where in a process calls are made: place for the cave, a hole for the area, a way to end batches.
//!
//! Found once per process and freeze: while everybody stands, nothing of it changes.
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use nix::libc;

use super::procfs::{self, Mapped, Status};
use crate::arch::{cave, stub};
use crate::inventory::{Pid, Tid};

/// Free space kept on both sides of an area, so that it never merges with a neighbour, nor stops a
/// stack from growing.
const GUARD: u64 = 1 << 20;
/// The highest address that programs can map at.
const TOP: u64 = 0x7fff_ffff_f000;
const PAGE: u64 = 4096;

/// A process in which calls can be made.
#[derive(Debug)]
pub(super) struct Site {
    /// `/proc/PID/mem`.
    pub(super) memory: File,
    /// Where the cave goes.
    pub(super) cave: u64,
    maps: Vec<Mapped>,
    pub(super) status: Status,
}

impl Site {
    /// `None`: there is no place for a cave.
    pub(super) fn find(pid: Pid) -> std::io::Result<Option<Self>> {
        let memory = OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem"))?;
        let maps = procfs::maps(pid);
        let found = match maps.iter().find(|area| area.name == "[vdso]") {
            Some(vdso) => behind_vdso(&memory, vdso)?,
            None => behind_code(&memory, &maps),
        };
        let Some(cave) = found else { return Ok(None) };
        let status = Status::of(Tid(pid.0));
        Ok(Some(Self { memory, cave, maps, status }))
    }

    /// Room for `bytes` that nobody uses: the highest such hole below the stack.
    pub(super) fn hole(&self, bytes: u64) -> Option<u64> {
        hole(&self.maps, bytes)
    }

    /// Where stubs may be: behind the cave, on the same page.
    pub(super) fn stubs(&self) -> impl Iterator<Item = u64> + use<> {
        let step = stub::BYTES as u64;
        let first = (self.cave + cave().bytes.len() as u64).next_multiple_of(step);
        let end = (self.cave & !(PAGE - 1)) + PAGE;
        (first..=(end - step)).step_by(stub::BYTES)
    }

    /// A signal that ends batches of a thread with this mask, unless the program catches them all, or
    /// it could not be told from a stranger's.
    pub(super) fn marker(&self, mask: u64) -> Option<i32> {
        if self.status.queue_is_full() || self.status.levels() > 1 {
            return None;
        }
        let caught = self.status.signals("SigCgt");
        let ignored = self.status.signals("SigIgn");
        let pending = self.status.signals("SigPnd") | self.status.signals("ShdPnd");
        marker(caught, ignored, mask | pending)
    }
}

fn behind_vdso(memory: &File, vdso: &Mapped) -> std::io::Result<Option<u64>> {
    let mut image = vec![0; usize::try_from(vdso.end - vdso.start).unwrap_or_default()];
    memory.read_exact_at(&mut image, vdso.start)?;
    Ok(place_behind(&image, cave().bytes.len()).map(|place| vdso.start + place as u64))
}

/// For a program that has unmapped its vdso: the zeros behind the code of a file, up to the end of
/// their page. That page becomes the program's own, which is why others are spared it.
fn behind_code(memory: &File, maps: &[Mapped]) -> Option<u64> {
    for area in maps.iter().filter(|area| area.code && area.name.starts_with('/')) {
        let mut page = vec![0; usize::try_from(PAGE).unwrap_or_default()];
        if memory.read_exact_at(&mut page, area.end - PAGE).is_ok()
            && let Some(place) = place_in_zeros(&page, cave().bytes.len())
        {
            return Some(area.end - PAGE + place as u64);
        }
    }
    None
}

/// Where `bytes` fit behind all that is not zero, and a little further on.
fn place_in_zeros(page: &[u8], bytes: usize) -> Option<usize> {
    let used = page.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let place = used.next_multiple_of(16) + 16;
    (place + bytes <= page.len()).then_some(place)
}

/// Where behind the vdso's ELF image `bytes` fit into one page, on a 16-byte boundary.
fn place_behind(image: &[u8], bytes: usize) -> Option<usize> {
    let page = usize::try_from(PAGE).ok()?;
    let end = elf_end(image)?.next_multiple_of(16);
    let place =
        if end / page == (end + bytes - 1) / page { end } else { end.next_multiple_of(page) };
    (place + bytes <= image.len()).then_some(place)
}

/// Where the vdso's image ends: behind its section headers or its last segment. What lies behind is ours
/// to use, and part of the image: a restore writes these bytes into the restored vdso, before any thread
/// goes on, for threads that sleep may start in a stub there.
pub(crate) fn elf_end(image: &[u8]) -> Option<usize> {
    let word = |at: usize| {
        let bytes = image.get(at..)?.first_chunk()?;
        usize::try_from(u64::from_ne_bytes(*bytes)).ok()
    };
    let half = |at: usize| Some(usize::from(u16::from_ne_bytes(*image.get(at..)?.first_chunk()?)));
    // `Elf64_Ehdr`: e_phoff, e_shoff, e_phentsize, e_phnum, e_shentsize, e_shnum.
    let (segments, sections) = (word(32)?, word(40)?);
    let (segment_bytes, segment_count) = (half(54)?, half(56)?);
    let mut end = sections + half(58)? * half(60)?;
    for index in 0..segment_count {
        // `Elf64_Phdr`: p_offset, p_filesz.
        let header = segments + index * segment_bytes;
        end = end.max(word(header + 8)? + word(header + 32)?);
    }
    Some(end)
}

fn hole(maps: &[Mapped], bytes: u64) -> Option<u64> {
    let below = maps.get(..maps.partition_point(|area| area.end <= TOP)).unwrap_or_default();
    let fits = |gap: &&[Mapped]| match gap {
        [low, high] => high.name != "[stack]" && high.start - low.end >= bytes + 2 * GUARD,
        _ => false,
    };
    let gap = below.windows(2).rev().find(fits)?;
    Some((gap.last()?.start - GUARD - bytes) & !(PAGE - 1))
}

/// Signals whose default is to be ignored (signal(7)), without SIGCONT: that discards pending stops.
const IGNORED_BY_DEFAULT: [i32; 3] = [libc::SIGWINCH, libc::SIGURG, libc::SIGCHLD];

fn marker(caught: u64, ignored: u64, unusable: u64) -> Option<i32> {
    let is_in = |set: u64, signal: i32| set >> (signal - 1) & 1 == 1;
    let ignored_by_choice = (1..=64).filter(|signal| is_in(ignored, *signal));
    let mut candidates = IGNORED_BY_DEFAULT.into_iter().chain(ignored_by_choice);
    candidates.find(|signal| !is_in(caught | unusable, *signal) && *signal != libc::SIGCONT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(start: u64, end: u64, name: &str) -> Mapped {
        Mapped { start, end, code: false, name: name.into() }
    }

    #[test]
    fn a_hole_keeps_away_from_neighbours_and_from_the_stack() {
        let (low, high) = (mapped(0x1000, 0x2000, ""), mapped(0x4000_0000, 0x4000_1000, ""));
        let stack = mapped(0x7000_0000_0000, 0x7000_0001_0000, "[stack]");
        let maps = [low, high, stack];
        assert_eq!(hole(&maps, 0x10000), Some(0x4000_0000 - GUARD - 0x10000));
        assert_eq!(hole(&maps[1..], 0x10000), None);
        assert_eq!(hole(&maps, 0x4000_0000), None);
    }

    #[test]
    fn without_a_vdso_the_end_of_some_code_will_do() {
        let mut page = vec![0u8; 4096];
        page[2000] = 0xc3;
        assert_eq!(place_in_zeros(&page, 600), Some(2032));
        page[3500] = 0xc3;
        assert_eq!(place_in_zeros(&page, 600), None);
    }

    #[test]
    fn a_marker_means_nothing_to_the_program() {
        let bit = |signal: i32| 1 << (signal - 1);
        assert_eq!(marker(0, 0, 0), Some(libc::SIGWINCH));
        assert_eq!(marker(bit(libc::SIGWINCH), 0, 0), Some(libc::SIGURG));
        assert_eq!(marker(0, 0, bit(libc::SIGWINCH)), Some(libc::SIGURG));
        let all = !(bit(libc::SIGCONT) | bit(libc::SIGPIPE));
        assert_eq!(marker(all, 0, 0), None);
        assert_eq!(marker(all, bit(libc::SIGPIPE), 0), Some(libc::SIGPIPE));
    }

    #[test]
    fn the_cave_goes_behind_the_image_and_into_one_page() {
        let mut image = vec![0u8; 8192];
        image[40..48].copy_from_slice(&4000u64.to_ne_bytes());
        (image[58], image[60]) = (64, 1);
        assert_eq!(elf_end(&image), Some(4064));
        assert_eq!(place_behind(&image, 16), Some(4064));
        assert_eq!(place_behind(&image, 700), Some(4096));
        assert_eq!(place_behind(&image, 5000), None);
    }
}
