//! How bytes are read that a sink was told of, by whichever of its threads.
//!
//! Pages are read by `process_vm_readv(2)`, many runs in one call. Pages that their owner may not read
//! itself come through `/proc/PID/mem`; and so do those that somebody shares until one of them writes, of
//! which `process_vm_readv(2)` would make two.
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd;

use super::ranges::{Ranges, overlaps};
use crate::error::{Error, Result, kernel, kernel_io};
use crate::image::{Run, each};
use crate::inventory::Pid;

/// `IOV_MAX` of `include/uapi/linux/uio.h`.
const RUNS: usize = 1024;

/// An error on its way through a sink, and as it comes back.
pub(super) fn there(error: Error) -> io::Error {
    io::Error::other(error)
}

pub(super) fn back(error: io::Error) -> Error {
    error.downcast::<Error>().unwrap_or_else(Error::Image)
}

pub(super) fn size(runs: &[Run]) -> usize {
    runs.iter().map(|run| run.1).sum()
}

/// Bytes that were copied: runs that lie one behind the other, and where each begins. Runs that touch lie
/// one behind the other here too.
#[derive(Debug, Clone, Default)]
pub(super) struct Copied {
    pub(super) bytes: Arc<Vec<u8>>,
    pub(super) places: Vec<(u64, usize)>,
}

impl Copied {
    pub(super) fn read(&self, runs: &[Run], into: &mut [u8]) -> io::Result<()> {
        let missing = || io::Error::from(io::ErrorKind::UnexpectedEof);
        each(runs, into, |at, into| {
            let before = self.places.partition_point(|place| place.0 <= at).checked_sub(1);
            let (start, place) =
                before.and_then(|index| self.places.get(index)).ok_or_else(missing)?;
            let from = usize::try_from(at - start).map_or(usize::MAX, |over| place + over);
            let bytes =
                self.bytes.get(from..from.saturating_add(into.len())).ok_or_else(missing)?;
            into.copy_from_slice(bytes);
            Ok(())
        })
    }
}

/// Runs that meet these ranges, and those that do not, in turn, as many as one call takes.
pub(super) fn by<E>(
    ranges: &Ranges,
    runs: &[Run],
    mut room: &mut [u8],
    mut read: impl FnMut(bool, &[Run], &mut [u8]) -> Result<(), E>,
) -> Result<(), E> {
    let meets = |(at, len): &Run| overlaps(ranges, *at, *at + *len as u64);
    for same in runs.chunk_by(|one, next| meets(one) == meets(next)) {
        for some in same.chunks(RUNS) {
            let (now, later) = room.split_at_mut(size(some).min(room.len()));
            read(some.iter().any(meets), some, now)?;
            room = later;
        }
    }
    Ok(())
}

/// The memory of a process that stands still.
pub(super) struct Memory {
    pid: Pid,
    /// What somebody else may have too.
    shared: Ranges,
    file: OnceLock<File>,
}

impl Memory {
    pub(super) fn new(pid: Pid, shared: Ranges) -> Self {
        Self { pid, shared, file: OnceLock::new() }
    }

    pub(super) fn read(&self, runs: &[Run], room: &mut [u8]) -> Result<()> {
        by(&self.shared, runs, room, |gently, runs, room| {
            let done = if gently { 0 } else { self.quickly(runs, room)? };
            self.rest(runs, room, done)
        })
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
