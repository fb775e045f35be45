//! Bytes of the image on their way into a blank's memory.
//!
//! Pages that are not there yet are made of the bytes ([`Missing`]), where the kernel lets us. Else
//! `process_vm_writev(2)` writes what is writable; the few pages that are not go through
//! `/proc/PID/mem`, which asks the area's possibilities only. A blank that was forked from finished
//! memory has most of its pages already: these are compared, and written only where they differ, so
//! that parent and child go on sharing the rest.
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, OnceLock, PoisonError};

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_writev};
use nix::unistd;

use super::missing::Missing;
use super::ranges::{Ranges, joined, overlaps};
use crate::inventory::{Pid, Vma};

const PAGE: usize = 4096;

/// Writes to the memory of one blank, from any number of threads.
#[derive(Debug)]
pub(crate) struct Fill<'a> {
    pid: Pid,
    /// Its areas, ascending.
    vmas: &'a [Vma],
    /// What it has from its maker already.
    inherited: &'a Ranges,
    /// Where pages can be made of bytes.
    missing: Option<Missing>,
    /// What has been given to it, in the order in which it came.
    given: Mutex<Ranges>,
    memory: OnceLock<File>,
}

impl<'a> Fill<'a> {
    pub(crate) fn new(
        pid: Pid,
        vmas: &'a [Vma],
        inherited: &'a Ranges,
        missing: Option<Missing>,
    ) -> Self {
        let (given, memory) = (Mutex::new(Vec::new()), OnceLock::new());
        Self { pid, vmas, inherited, missing, given, memory }
    }

    /// Puts `bytes` at `address`.
    pub(crate) fn put(&self, address: u64, bytes: &[u8]) -> io::Result<()> {
        let range = (address, address + bytes.len() as u64);
        self.given.lock().unwrap_or_else(PoisonError::into_inner).push(range);
        if overlaps(self.inherited, range.0, range.1) {
            self.differ(address, bytes)
        } else {
            self.write(address, bytes)
        }
    }

    /// Puts zeros from `start` to `end`.
    pub(crate) fn zero(&self, start: u64, end: u64) -> io::Result<()> {
        let zeros = [0; PAGE];
        (start..end).step_by(PAGE).try_for_each(|at| self.write(at, &zeros))
    }

    /// All bytes have come: what was filled. From now on the kernel makes missing pages by itself again.
    pub(crate) fn settle(&mut self) -> Ranges {
        self.missing = None;
        let given = self.given.get_mut().unwrap_or_else(PoisonError::into_inner);
        given.sort_unstable();
        joined(given)
    }

    /// Puts `bytes` at `address`, where they are not there already.
    fn differ(&self, address: u64, bytes: &[u8]) -> io::Result<()> {
        // Not by process_vm_readv(2), which makes two of pages that parent and child share.
        let mut there = vec![0; bytes.len()];
        let known = self.memory()?.read_at(&mut there, address).unwrap_or(0);
        let (mut at, mut rest, mut seen) = (address, bytes, there.get(..known).unwrap_or_default());
        // Runs of pages that differ, each in one go.
        while !rest.is_empty() {
            let run = run(rest, seen);
            let (now, later) = rest.split_at(run.0);
            if run.1 {
                self.write(at, now)?;
            }
            (at, rest) = (at + run.0 as u64, later);
            seen = seen.get(run.0..).unwrap_or_default();
        }
        Ok(())
    }

    fn write(&self, mut address: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let made =
                self.missing.as_ref().map_or(Ok(0), |missing| missing.put(address, bytes))?;
            let done = if made > 0 { made } else { self.overwrite(address, bytes)? };
            address += done as u64;
            bytes = bytes.get(done..).unwrap_or_default();
        }
        Ok(())
    }

    /// Writes the start of `bytes`, or all; how many it were.
    fn overwrite(&self, address: u64, bytes: &[u8]) -> io::Result<usize> {
        let base = usize::try_from(address).map_err(|_| Errno::EFAULT)?;
        let remote = [RemoteIoVec { base, len: bytes.len() }];
        let pid = unistd::Pid::from_raw(self.pid.0);
        match process_vm_writev(pid, &[IoSlice::new(bytes)], &remote) {
            Ok(done) if done > 0 => Ok(done),
            Ok(_) | Err(Errno::EFAULT) => self.force(address, bytes),
            Err(errno) => Err(errno.into()),
        }
    }

    /// At most to the end of the area: the next one may be writable.
    fn force(&self, address: u64, bytes: &[u8]) -> io::Result<usize> {
        let vma = self.vmas.iter().find(|vma| vma.start <= address && address < vma.end);
        let vma = vma.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("no area at {address:#x}"))
        })?;
        let len = usize::try_from(vma.end - address).unwrap_or(usize::MAX).min(bytes.len());
        match self.memory()?.write_at(bytes.get(..len).unwrap_or_default(), address)? {
            0 => Err(Errno::EIO.into()),
            done => Ok(done),
        }
    }

    fn memory(&self) -> io::Result<&File> {
        if self.memory.get().is_none() {
            let path = format!("/proc/{}/mem", self.pid);
            // Whoever comes second closes theirs.
            let _ = self.memory.set(File::options().read(true).write(true).open(path)?);
        }
        self.memory.get().ok_or_else(|| Errno::EIO.into())
    }
}

/// How long the run of pages at the start of `wanted` is that all differ, or all are as `seen`.
fn run(wanted: &[u8], seen: &[u8]) -> (usize, bool) {
    let differs = |page: usize| {
        let range = page * PAGE..((page + 1) * PAGE).min(wanted.len());
        wanted.get(range.clone()) != seen.get(range)
    };
    let first = differs(0);
    let pages = wanted.len().div_ceil(PAGE);
    let same = (1..pages).take_while(|page| differs(*page) == first).count();
    (((1 + same) * PAGE).min(wanted.len()), first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_that_differ_are_written() {
        let (mut wanted, seen) = (vec![0u8; 3 * PAGE], vec![0u8; 3 * PAGE]);
        wanted[PAGE] = 1;
        assert_eq!(run(&wanted, &seen), (PAGE, false));
        assert_eq!(run(&wanted[PAGE..], &seen[PAGE..]), (PAGE, true));
        assert_eq!(run(&wanted[2 * PAGE..], &[]), (PAGE, true), "what cannot be read is written");
    }
}
