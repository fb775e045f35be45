//! Memory and what objects hold, on their way into an image: read while the tree stands still.
//!
//! Nothing is copied here: a sink is told which runs of pages there are, and how to read them, and has as
//! many threads read as suits it, each into a room of its own. Pages are read by `process_vm_readv(2)`,
//! many runs in one call. Pages that their owner may not read itself come through `/proc/PID/mem`; and
//! so do those that parent and child share until one of them writes, of which `process_vm_readv(2)`
//! would make two. Holes of files stay holes.
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::{self, Whence, lseek};

use super::collect::Own;
use super::fill::overlaps;
use super::pages::Ranges;
use crate::error::{Error, Result, kernel, kernel_io};
use crate::image::{Bulk, Contents, ImageSink, Origin, Run};
use crate::inventory::{End, Pid, SpaceId};

/// How much a sink is told of at once, so that it can say how far it is.
const STEP: usize = 8 << 20;
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
    held: Vec<Part>,
}

/// Some bytes, and where they are.
struct Part {
    of: Contents,
    runs: Vec<Run>,
    origin: Origin,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Part")
            .field("of", &self.of)
            .field("runs", &self.runs.len())
            .finish_non_exhaustive()
    }
}

impl Copy {
    /// Copies everything into `room`, unless it is too little; whether it was enough.
    pub(crate) fn fits(&mut self, mut room: Vec<u8>) -> Result<bool> {
        let parts = self.parts()?;
        let wanted: usize = parts.iter().map(|part| size(&part.runs)).sum();
        let mut rest = room.get_mut(..wanted);
        let fits = rest.is_some();
        for part in parts.iter().filter(|_| fits) {
            let (now, later) = rest.take().unwrap_or_default().split_at_mut(size(&part.runs));
            (part.origin)(&part.runs, now).map_err(back)?;
            rest = Some(later);
        }
        self.held = if fits { hold(parts, room) } else { parts };
        Ok(fits)
    }

    /// Everything that is still where it was.
    fn parts(&mut self) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        for (id, (pid, Own { pages, shared })) in std::mem::take(&mut self.spaces) {
            let memory = Memory { pid, shared, file: OnceLock::new() };
            let run = |(start, end): &(u64, u64)| {
                (*start, usize::try_from(end - start).unwrap_or(usize::MAX))
            };
            parts.push(Part {
                of: Contents::Space(id),
                runs: pages.iter().map(run).collect(),
                origin: Arc::new(move |runs, room| memory.read(runs, room).map_err(there)),
            });
        }
        for (object, file) in std::mem::take(&mut self.bulk.files) {
            let file = File::from(file);
            let (of, runs) = (Contents::Object(object, End(0)), data(&file)?);
            let origin =
                Arc::new(move |runs: &[Run], room: &mut [u8]| read_file(&file, runs, room));
            parts.push(Part { of, runs, origin });
        }
        Ok(parts)
    }

    /// Copies everything; how many bytes.
    pub(crate) fn run(mut self, image: &mut dyn ImageSink) -> Result<u64> {
        let mut total = 0;
        for ((object, end), bytes) in std::mem::take(&mut self.bulk.bytes) {
            image.bytes(Contents::Object(object, end), 0, &bytes)?;
            total += bytes.len() as u64;
        }
        let mut parts = std::mem::take(&mut self.held);
        parts.extend(self.parts()?);
        for Part { of, runs, origin } in &parts {
            total += size(runs) as u64;
            steps(runs, |runs| image.runs(*of, runs, origin)).map_err(back)?;
        }
        image.settle().map_err(back)?;
        Ok(total)
    }
}

/// An error on its way through a sink, and as it comes back.
fn there(error: Error) -> io::Error {
    io::Error::other(error)
}

fn back(error: io::Error) -> Error {
    error.downcast::<Error>().unwrap_or_else(Error::Image)
}

fn size(runs: &[Run]) -> usize {
    runs.iter().map(|run| run.1).sum()
}

/// Gives runs away, as many as make a step.
fn steps(runs: &[Run], mut give: impl FnMut(&[Run]) -> io::Result<()>) -> io::Result<()> {
    let (mut some, mut left) = (Vec::new(), STEP);
    for &(mut at, mut len) in runs {
        while len > 0 {
            let take = len.min(left);
            some.push((at, take));
            (at, len, left) = (at + take as u64, len - take, left - take);
            if left == 0 {
                give(&some)?;
                some.clear();
                left = STEP;
            }
        }
    }
    if some.is_empty() { Ok(()) } else { give(&some) }
}

/// Parts whose bytes lie one behind the other in a room of ours.
fn hold(parts: Vec<Part>, room: Vec<u8>) -> Vec<Part> {
    let (room, mut used) = (Arc::new(room), 0);
    let mut held = |Part { of, runs, .. }: Part| {
        let mut places = Vec::new();
        for (at, len) in &runs {
            places.push((*at, used));
            used += len;
        }
        let room = Arc::clone(&room);
        let origin =
            Arc::new(move |runs: &[Run], into: &mut [u8]| from_room(&room, &places, runs, into));
        Part { of, runs, origin }
    };
    parts.into_iter().map(&mut held).collect()
}

/// Reads what was copied; `places` say where in the room runs begin. Runs that touch lie one behind the
/// other there too.
fn from_room(
    room: &[u8],
    places: &[(u64, usize)],
    runs: &[Run],
    into: &mut [u8],
) -> io::Result<()> {
    let missing = || io::Error::from(io::ErrorKind::UnexpectedEof);
    each(runs, into, |at, into| {
        let before = places.partition_point(|place| place.0 <= at).checked_sub(1);
        let (start, place) = before.and_then(|index| places.get(index)).ok_or_else(missing)?;
        let from = usize::try_from(at - start).map_or(usize::MAX, |over| place + over);
        let bytes = room.get(from..from.saturating_add(into.len())).ok_or_else(missing)?;
        into.copy_from_slice(bytes);
        Ok(())
    })
}

/// Each run with its part of a room.
fn each<E>(
    runs: &[Run],
    mut room: &mut [u8],
    mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<(), E> {
    for (at, len) in runs {
        let (now, later) = room.split_at_mut((*len).min(room.len()));
        read(*at, now)?;
        room = later;
    }
    Ok(())
}

/// The memory of a process that stands still.
struct Memory {
    pid: Pid,
    /// What it may share with whom it was forked from.
    shared: Ranges,
    file: OnceLock<File>,
}

impl Memory {
    fn read(&self, runs: &[Run], mut room: &mut [u8]) -> Result<()> {
        let gently = |(at, len): &Run| overlaps(&self.shared, *at, *at + *len as u64);
        for some in runs.chunk_by(|one, next| gently(one) == gently(next)) {
            for some in some.chunks(RUNS) {
                let (now, later) = room.split_at_mut(size(some).min(room.len()));
                let done = if some.iter().any(gently) { 0 } else { self.quickly(some, now)? };
                self.rest(some, now, done)?;
                room = later;
            }
        }
        Ok(())
    }

    /// How many bytes could be read so.
    fn quickly(&self, runs: &[Run], into: &mut [u8]) -> Result<usize> {
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

    /// Reads what is not among the first `done` bytes.
    fn rest(&self, runs: &[Run], into: &mut [u8], mut done: usize) -> Result<()> {
        each(runs, into, |at, into| {
            if done < into.len() {
                self.file()?.read_exact_at(into, at).map_err(kernel_io("read"))?;
            }
            done = done.saturating_sub(into.len());
            Ok(())
        })
    }

    fn file(&self) -> Result<&File> {
        if self.file.get().is_none() {
            let file = File::open(format!("/proc/{}/mem", self.pid)).map_err(kernel_io("open"))?;
            drop(self.file.set(file)); // Or another thread's.
        }
        self.file.get().ok_or(Error::Died(self.pid))
    }
}

/// Where a file of our own opening is no hole.
fn data(file: &File) -> Result<Vec<Run>> {
    let (mut found, mut at) = (Vec::new(), 0);
    let size = file.metadata().map_err(kernel_io("fstat"))?.len();
    loop {
        let start = match lseek(file, at, Whence::SeekData) {
            Ok(start) => start,
            Err(Errno::ENXIO) => return Ok(found),
            Err(errno) => return Err(kernel("lseek")(errno)),
        };
        at = lseek(file, start, Whence::SeekHole).map_err(kernel("lseek"))?;
        let (start, end) = (start.cast_unsigned(), at.cast_unsigned().min(size));
        if start < end {
            found.push((start, usize::try_from(end - start).unwrap_or(usize::MAX)));
        }
    }
}

/// What was cut off meanwhile by those who have it too reads as zeros.
fn read_file(file: &File, runs: &[Run], room: &mut [u8]) -> io::Result<()> {
    each(runs, room, |mut at, mut into| {
        while !into.is_empty() {
            let done = file.read_at(into, at)?;
            if done == 0 {
                into.fill(0);
                return Ok(());
            }
            at += done as u64;
            into = into.get_mut(done..).unwrap_or_default();
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};

    /// A sink that puts streams together.
    #[derive(Default)]
    struct Sink(BTreeMap<Contents, BTreeMap<u64, Vec<u8>>>);

    impl ImageSink for Sink {
        fn inventory(&mut self, _: &crate::inventory::Inventory) -> io::Result<()> {
            Ok(())
        }
        fn bytes(&mut self, of: Contents, at: u64, bytes: &[u8]) -> io::Result<()> {
            self.0.entry(of).or_default().insert(at, bytes.to_vec());
            Ok(())
        }
        fn restart(&mut self, _: Contents) -> io::Result<()> {
            Ok(())
        }
        fn unchanged(&mut self, _: Contents, _: std::ops::Range<u64>) -> io::Result<()> {
            Ok(())
        }
    }

    const SPACE: Contents = Contents::Space(SpaceId(0));

    fn me() -> Pid {
        Pid(std::process::id().cast_signed())
    }

    #[test]
    fn ranges_of_our_own_come_out_as_they_are() {
        let bytes: Vec<u8> = (0..50_000_u32).map(|n| (n % 251) as u8).collect();
        let base = bytes.as_ptr().expose_provenance() as u64;
        let pages =
            vec![(base, base + 10), (base + 100, base + 20_000), (base + 20_000, base + 50_000)];
        let own = Own { pages, shared: vec![(base + 300, base + 9000)] };
        let copy = Copy { spaces: [(SpaceId(0), (me(), own))].into(), ..Copy::default() };
        let mut sink = Sink::default();
        assert_eq!(copy.run(&mut sink).unwrap(), 49_910);
        let mut seen = sink.0.remove(&SPACE).unwrap();
        assert_eq!(seen.remove(&base).unwrap(), bytes[..10]);
        assert_eq!(seen.first_key_value().unwrap().0, &(base + 100));
        assert_eq!(seen.into_values().flatten().collect::<Vec<_>>(), bytes[100..]);
    }

    #[test]
    fn who_has_died_is_named_though_a_sink_was_in_between() {
        let own = Own { pages: vec![(0x1000, 0x2000)], shared: Vec::new() };
        let nobody = Pid(i32::MAX);
        let copy = Copy { spaces: [(SpaceId(0), (nobody, own))].into(), ..Copy::default() };
        let died = copy.run(&mut Sink::default());
        assert!(matches!(died, Err(Error::Died(pid)) if pid == nobody), "{died:?}");
    }

    #[test]
    fn what_fits_is_held_and_comes_out_the_same() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 249) as u8).collect();
        let base = bytes.as_ptr().expose_provenance() as u64;
        let copy = || {
            let file = memfd_create("", MFdFlags::empty()).unwrap();
            let memfd = File::from(file.try_clone().unwrap());
            memfd.write_all_at(&bytes[..700_000], 1 << 20).unwrap();
            let pages = vec![(base, base + 1_000_000), (base + 1_500_000, base + 3_000_000)];
            let own = Own { pages, shared: Vec::new() };
            let bulk =
                Bulk { files: [(crate::inventory::ObjectId(3), file)].into(), ..Bulk::default() };
            let spaces = [(SpaceId(0), (me(), own))].into();
            Copy { spaces, bulk, held: Vec::new() }
        };
        let written = |copy: Copy| {
            let mut sink = Sink::default();
            let total = copy.run(&mut sink).unwrap();
            let joined = |runs: BTreeMap<u64, Vec<u8>>| runs.into_values().flatten().collect();
            (total, sink.0.into_values().map(joined).collect::<Vec<Vec<u8>>>())
        };
        let mut held = copy();
        assert!(held.fits(vec![1; 4 << 20]).unwrap());
        assert!(held.spaces.is_empty() && held.bulk.files.is_empty());
        assert_eq!(written(held), written(copy()));
        let mut large = copy();
        assert!(!large.fits(vec![1; 3 << 20]).unwrap());
        assert_eq!(written(large), written(copy()));
    }

    #[test]
    fn steps_are_as_long_as_they_say() {
        let mut seen = Vec::new();
        let runs = [(4096, STEP - 4096), (1 << 40, 2 * STEP)];
        steps(&runs, |some| {
            seen.push(some.to_vec());
            Ok(())
        })
        .unwrap();
        assert_eq!(
            seen.iter().map(|some| size(some)).collect::<Vec<_>>(),
            [STEP, STEP, STEP - 4096]
        );
        assert_eq!(seen[0], [(4096, STEP - 4096), (1 << 40, 4096)]);
    }

    #[test]
    fn holes_stay_holes() {
        let file = memfd_create("", MFdFlags::empty()).unwrap();
        let copy = File::from(file);
        copy.set_len(1 << 30).unwrap();
        copy.write_all_at(b"data", (1 << 20) + 5).unwrap();
        assert_eq!(data(&copy).unwrap(), [(1 << 20, 4096)]);
        let mut room = vec![1; 4096];
        read_file(&copy, &[(1 << 20, 4096)], &mut room).unwrap();
        assert_eq!(&room[5..10], b"data\0");
    }
}
