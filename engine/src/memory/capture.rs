//! Memory and what objects hold, on their way into an image: copied while the tree stands still.
//!
//! Pages are read by `process_vm_readv(2)` in large runs, many ranges in one call, and go straight to
//! the sink: what we hold is one buffer, however large the program. Pages that their owner may not
//! read itself come through `/proc/PID/mem`; and so do those that parent and child share until one of
//! them writes, of which `process_vm_readv(2)` would make two. Holes of files stay holes.
use std::collections::BTreeMap;
use std::fs::File;
use std::io::IoSliceMut;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::{self, Whence, lseek};

use super::collect::Own;
use super::fill::{intersect, without};
use crate::error::{Error, Result, kernel, kernel_io};
use crate::image::{Bulk, Contents, ImageSink};
use crate::inventory::{End, Pid, SpaceId};

/// How much is read in one go: little enough that who takes it finds it in the cache.
pub(crate) const ROOM: usize = 512 << 10;
/// Large runs are cut at multiples of this: sinks store blocks, and copy what is part of one.
const ALIGN: u64 = 64 << 10;
/// `IOV_MAX` of `include/uapi/linux/uio.h`.
const RUNS: usize = 1024;

/// What there is to copy.
#[derive(Debug, Default)]
pub(crate) struct Copy {
    /// Spaces, each by one process that has it.
    pub(crate) spaces: BTreeMap<SpaceId, (Pid, Own)>,
    /// What objects gave.
    pub(crate) bulk: Bulk,
    /// What was copied already.
    held: Vec<Run>,
}

/// Runs that lie one behind the other in a room, and whose they are.
type Run = (Contents, Vec<(u64, usize)>, Vec<u8>);

impl Copy {
    /// Copies everything into `rooms`, unless they are too few; whether they were enough.
    pub(crate) fn fits(&mut self, mut rooms: Vec<Vec<u8>>) -> Result<bool> {
        let space: usize = rooms.iter().map(Vec::len).sum();
        if self.size()? > space as u64 {
            return Ok(false);
        }
        let mut room = rooms.pop().unwrap_or_default();
        let mut keep = |of, runs: &[(u64, usize)], room: Vec<u8>| {
            let used = runs.iter().map(|run| run.1).sum::<usize>();
            // Many small ones must not take many rooms.
            let part = room.get(..used).filter(|part| part.len() < ROOM / 2).map(<[u8]>::to_vec);
            let (kept, next) = match part {
                Some(part) => (part, room),
                None => (room, rooms.pop().unwrap_or_else(|| vec![0; ROOM])),
            };
            self.held.push((of, runs.to_vec(), kept));
            Ok(next)
        };
        for (id, (pid, own)) in std::mem::take(&mut self.spaces) {
            let give = &mut |runs: &[(u64, usize)], room| keep(Contents::Space(id), runs, room);
            pages(pid, &own, &mut room, give)?;
        }
        for (object, file) in std::mem::take(&mut self.bulk.files) {
            let of = Contents::Object(object, End(0));
            contents(file, &mut room, &mut |runs: &[(u64, usize)], room| keep(of, runs, room))?;
        }
        Ok(true)
    }

    /// How much there is to copy, about.
    fn size(&self) -> Result<u64> {
        let ranges = self.spaces.values().flat_map(|(_, own)| &own.pages);
        let mut size: u64 = ranges.map(|(start, end)| end - start).sum();
        for file in self.bulk.files.values() {
            let blocks = fstat(file).map_err(kernel("fstat"))?.st_blocks;
            size += u64::try_from(blocks).unwrap_or_default() * 512;
        }
        Ok(size)
    }

    /// Copies everything; how many bytes.
    pub(crate) fn run(self, image: &mut dyn ImageSink) -> Result<u64> {
        let (mut room, mut total) = (Vec::new(), 0);
        for (of, runs, room) in self.held {
            total += runs.iter().map(|run| run.1 as u64).sum::<u64>();
            image.runs(of, &runs, room)?;
        }
        if !self.spaces.is_empty() || !self.bulk.files.is_empty() {
            room = vec![0; ROOM];
        }
        for (id, (pid, own)) in self.spaces {
            let give = &mut |runs: &[(u64, usize)], room| {
                Ok(image.runs(Contents::Space(id), runs, room)?)
            };
            total += pages(pid, &own, &mut room, give)?;
        }
        for ((object, end), bytes) in self.bulk.bytes {
            image.bytes(Contents::Object(object, end), 0, &bytes)?;
            total += bytes.len() as u64;
        }
        for (object, file) in self.bulk.files {
            let give = &mut |runs: &[(u64, usize)], room| {
                Ok(image.runs(Contents::Object(object, End(0)), runs, room)?)
            };
            total += contents(file, &mut room, give)?;
        }
        Ok(total)
    }
}

/// Where bytes go: runs that lie one behind the other in a room. It gives back another.
type Give<'a> = &'a mut dyn FnMut(&[(u64, usize)], Vec<u8>) -> Result<Vec<u8>>;

fn pages(pid: Pid, own: &Own, room: &mut Vec<u8>, give: Give<'_>) -> Result<u64> {
    let mut source = Source { pid, gently: false, memory: None };
    let alone = without(&own.pages, &own.shared).into_iter().map(|range| (range, false));
    let shared = intersect(&own.pages, &own.shared).into_iter().map(|range| (range, true));
    let mut ranges: Vec<_> = alone.chain(shared).collect();
    ranges.sort_unstable();
    let (mut runs, mut filled, mut total) = (Vec::new(), 0, 0);
    for ((start, end), gently) in ranges {
        if source.gently != gently {
            source.copy(&runs, room, give)?;
            (runs, filled) = (Vec::new(), 0);
            source.gently = gently;
        }
        let mut at = start;
        while at < end {
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            let len = fitting(at, left, room.len() - filled);
            runs.push((at, len));
            (at, filled, total) = (at + len as u64, filled + len, total + len as u64);
            if len < left || filled == room.len() || runs.len() == RUNS {
                source.copy(&runs, room, give)?;
                (runs, filled) = (Vec::new(), 0);
            }
        }
    }
    source.copy(&runs, room, give)?;
    Ok(total)
}

/// How much of `left` bytes at `at` is read into `space`.
fn fitting(at: u64, left: usize, space: usize) -> usize {
    if left <= space {
        return left;
    }
    let over = usize::try_from((at + space as u64) % ALIGN).unwrap_or_default();
    if over < space { space - over } else { space }
}

/// Whose memory is read, and how.
struct Source {
    pid: Pid,
    gently: bool,
    memory: Option<File>,
}

impl Source {
    fn copy(&mut self, runs: &[(u64, usize)], room: &mut Vec<u8>, give: Give<'_>) -> Result<()> {
        let wanted: usize = runs.iter().map(|run| run.1).sum();
        let Some(into) = room.get_mut(..wanted).filter(|into| !into.is_empty()) else {
            return Ok(());
        };
        let mut done = if self.gently { 0 } else { self.quickly(runs, into)? };
        let mut rest = into;
        for &(at, len) in runs {
            let (now, later) = rest.split_at_mut(len);
            if done < len {
                self.memory()?.read_exact_at(now, at).map_err(kernel_io("read"))?;
            }
            done = done.saturating_sub(len);
            rest = later;
        }
        *room = give(runs, std::mem::take(room))?;
        Ok(())
    }

    /// How many bytes could be read so.
    fn quickly(&self, runs: &[(u64, usize)], into: &mut [u8]) -> Result<usize> {
        let base = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let remote: Vec<_> =
            runs.iter().map(|(at, len)| RemoteIoVec { base: base(*at), len: *len }).collect();
        let process = unistd::Pid::from_raw(self.pid.0);
        match process_vm_readv(process, &mut [IoSliceMut::new(into)], &remote) {
            Ok(done) => Ok(done),
            Err(Errno::EFAULT) => Ok(0),
            Err(Errno::ESRCH) => Err(Error::Died(self.pid)),
            Err(errno) => Err(kernel("process_vm_readv")(errno)),
        }
    }

    fn memory(&mut self) -> Result<&mut File> {
        if self.memory.is_none() {
            let open = File::open(format!("/proc/{}/mem", self.pid)).map_err(kernel_io("open"))?;
            self.memory = Some(open);
        }
        self.memory.as_mut().ok_or(Error::Died(self.pid))
    }
}

/// What a file of our own opening holds, but for holes.
fn contents(file: OwnedFd, room: &mut Vec<u8>, give: Give<'_>) -> Result<u64> {
    let file = File::from(file);
    let (mut at, mut total) = (0, 0);
    loop {
        let start = match lseek(&file, at, Whence::SeekData) {
            Ok(start) => start,
            Err(Errno::ENXIO) => return Ok(total),
            Err(errno) => return Err(kernel("lseek")(errno)),
        };
        let end = lseek(&file, start, Whence::SeekHole).map_err(kernel("lseek"))?;
        at = start;
        while at < end {
            let place = at.cast_unsigned();
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            let left = fitting(place, left, room.len());
            let len = file
                .read_at(room.get_mut(..left).unwrap_or_default(), place)
                .map_err(kernel_io("read"))?;
            if len == 0 {
                return Ok(total);
            }
            *room = give(&[(place, len)], std::mem::take(room))?;
            (at, total) = (at + i64::try_from(len).unwrap_or(i64::MAX), total + len as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};

    /// Takes runs apart.
    fn each(runs: &[(u64, usize)], room: &[u8], mut see: impl FnMut(u64, &[u8])) {
        let mut rest = room;
        for &(at, len) in runs {
            let (now, later) = rest.split_at(len);
            see(at, now);
            rest = later;
        }
    }

    #[test]
    fn large_runs_end_where_blocks_do() {
        assert_eq!(fitting(4096, 100, 200), 100, "all of it");
        assert_eq!(fitting(4096, 1 << 30, 2 << 20), (2 << 20) - 4096);
        assert_eq!(fitting(0, 1 << 30, 2 << 20), 2 << 20);
        assert_eq!(fitting(4096, 1 << 30, 4096), 4096, "too little room for a block");
    }

    #[test]
    fn ranges_of_our_own_come_out_as_they_are() {
        let bytes: Vec<u8> = (0..50_000_u32).map(|n| (n % 251) as u8).collect();
        let base = bytes.as_ptr().expose_provenance() as u64;
        let pages = vec![(base, base + 10), (base + 100, base + 50_000)];
        let own = Own { pages, shared: vec![(base + 300, base + 9000)] };
        let (mut room, mut seen) = (vec![0; 4096], BTreeMap::new());
        let me = Pid(std::process::id().cast_signed());
        let total = super::pages(me, &own, &mut room, &mut |runs, room| {
            each(runs, &room, |at, bytes| drop(seen.insert(at - base, bytes.to_vec())));
            Ok(room)
        });
        assert_eq!(total.unwrap(), 49_910);
        assert_eq!(seen.remove(&0).unwrap(), bytes[..10]);
        assert_eq!(seen.into_values().flatten().collect::<Vec<_>>(), bytes[100..]);
    }

    /// A sink that puts streams together.
    #[derive(Default)]
    struct Sink(BTreeMap<Contents, BTreeMap<u64, Vec<u8>>>);

    impl ImageSink for Sink {
        fn inventory(&mut self, _: &crate::inventory::Inventory) -> std::io::Result<()> {
            Ok(())
        }
        fn bytes(&mut self, of: Contents, at: u64, bytes: &[u8]) -> std::io::Result<()> {
            self.0.entry(of).or_default().insert(at, bytes.to_vec());
            Ok(())
        }
        fn restart(&mut self, _: Contents) -> std::io::Result<()> {
            Ok(())
        }
        fn unchanged(&mut self, _: Contents, _: std::ops::Range<u64>) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_fits_is_held_and_comes_out_the_same() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 249) as u8).collect();
        let base = bytes.as_ptr().expose_provenance() as u64;
        let me = Pid(std::process::id().cast_signed());
        let copy = || {
            let file = memfd_create("", MFdFlags::empty()).unwrap();
            let memfd = File::from(file.try_clone().unwrap());
            memfd.write_all_at(&bytes[..700_000], 1 << 20).unwrap();
            let own = Own { pages: vec![(base, base + 3_000_000)], shared: Vec::new() };
            let bulk =
                Bulk { files: [(crate::inventory::ObjectId(3), file)].into(), ..Bulk::default() };
            let spaces = [(SpaceId(0), (me, own))].into();
            Copy { spaces, bulk, held: Vec::new() }
        };
        let written = |copy: Copy| {
            let mut sink = Sink::default();
            let total = copy.run(&mut sink).unwrap();
            let joined = |runs: BTreeMap<u64, Vec<u8>>| runs.into_values().flatten().collect();
            (total, sink.0.into_values().map(joined).collect::<Vec<Vec<u8>>>())
        };
        let mut held = copy();
        assert!(held.fits(vec![vec![1; ROOM]; 9]).unwrap());
        assert!(held.spaces.is_empty() && held.bulk.files.is_empty());
        assert_eq!(written(held), written(copy()));
        let mut large = copy();
        assert!(!large.fits(vec![vec![1; ROOM]; 5]).unwrap() && large.held.is_empty());
        assert_eq!(written(large), written(copy()));
    }

    #[test]
    fn holes_stay_holes() {
        let file = memfd_create("", MFdFlags::empty()).unwrap();
        let copy = File::from(file.try_clone().unwrap());
        copy.set_len(1 << 30).unwrap();
        copy.write_all_at(b"data", (1 << 20) + 5).unwrap();
        let (mut room, mut seen) = (vec![0; 4096], Vec::new());
        let total = contents(file, &mut room, &mut |runs, room| {
            each(runs, &room, |at, bytes| seen.push((at, bytes.to_vec())));
            Ok(room)
        });
        assert_eq!(total.unwrap(), 4096);
        assert_eq!(seen[0].0, 1 << 20);
        assert_eq!(&seen[0].1[5..9], b"data");
    }
}
