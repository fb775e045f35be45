//! Bytes of the image on their way into a blank's memory.
//!
//! `process_vm_writev(2)` writes what is writable; the few pages that are not go through
//! `/proc/PID/mem`, which asks the area's possibilities only. A blank that was forked from finished
//! memory has most of its pages already: these are compared, and written only where they differ, so
//! that parent and child go on sharing the rest.
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_writev};
use nix::unistd;

use crate::inventory::{Pid, Vma};

const PAGE: usize = 4096;

/// Ranges of pages, ascending, neighbours joined.
pub(crate) type Ranges = Vec<(u64, u64)>;

/// Writes to the memory of one blank.
#[derive(Debug)]
pub(crate) struct Fill<'a> {
    pid: Pid,
    /// Its areas, ascending.
    vmas: &'a [Vma],
    /// What it has from its maker already.
    inherited: &'a Ranges,
    /// What has been given to it.
    pub(crate) filled: Ranges,
    memory: Option<File>,
}

impl<'a> Fill<'a> {
    pub(crate) fn new(pid: Pid, vmas: &'a [Vma], inherited: &'a Ranges) -> Self {
        Self { pid, vmas, inherited, filled: Vec::new(), memory: None }
    }

    /// Puts `bytes` at `address`.
    pub(crate) fn put(&mut self, address: u64, bytes: &[u8]) -> io::Result<()> {
        add(&mut self.filled, address, address + bytes.len() as u64);
        if !overlaps(self.inherited, address, address + bytes.len() as u64) {
            return self.write(address, bytes);
        }
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

    /// Puts zeros from `start` to `end`.
    pub(crate) fn zero(&mut self, start: u64, end: u64) -> io::Result<()> {
        let zeros = [0; PAGE];
        (start..end).step_by(PAGE).try_for_each(|at| self.write(at, &zeros))
    }

    fn raw(&self) -> unistd::Pid {
        unistd::Pid::from_raw(self.pid.0)
    }

    fn write(&mut self, mut address: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let place = usize::try_from(address).map_err(|_| Errno::EFAULT)?;
            let remote = [RemoteIoVec { base: place, len: bytes.len() }];
            let done = match process_vm_writev(self.raw(), &[IoSlice::new(bytes)], &remote) {
                Ok(done) if done > 0 => done,
                Ok(_) | Err(Errno::EFAULT) => self.force(address, bytes)?,
                Err(errno) => return Err(errno.into()),
            };
            address += done as u64;
            bytes = bytes.get(done..).unwrap_or_default();
        }
        Ok(())
    }

    /// At most to the end of the area: the next one may be writable.
    fn force(&mut self, address: u64, bytes: &[u8]) -> io::Result<usize> {
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

    fn memory(&mut self) -> io::Result<&File> {
        if self.memory.is_none() {
            let path = format!("/proc/{}/mem", self.pid);
            self.memory = Some(File::options().read(true).write(true).open(path)?);
        }
        self.memory.as_ref().ok_or_else(|| Errno::EIO.into())
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

/// Adds a range behind, or at, the last one.
fn add(ranges: &mut Ranges, start: u64, end: u64) {
    match ranges.last_mut() {
        Some(last) if last.1 >= start => last.1 = last.1.max(end),
        _ => ranges.push((start, end)),
    }
}

/// Whether any of `ranges` meets this one.
pub(super) fn overlaps(ranges: &Ranges, start: u64, end: u64) -> bool {
    let at = ranges.partition_point(|range| range.1 <= start);
    ranges.get(at).is_some_and(|range| range.0 < end)
}

/// What of `ranges` is within `within`.
pub(crate) fn intersect(ranges: &Ranges, within: &Ranges) -> Ranges {
    let mut found = Vec::new();
    for &(start, end) in within {
        let first = ranges.partition_point(|range| range.1 <= start);
        for &(a, b) in ranges.iter().skip(first).take_while(|range| range.0 < end) {
            found.push((a.max(start), b.min(end)));
        }
    }
    found
}

/// What of `ranges` is not in `others`.
pub(crate) fn without(ranges: &Ranges, others: &Ranges) -> Ranges {
    let mut left = Vec::new();
    for &(mut start, end) in ranges {
        let first = others.partition_point(|range| range.1 <= start);
        for &(a, b) in others.iter().skip(first).take_while(|range| range.0 < end) {
            if a > start {
                left.push((start, a));
            }
            start = start.max(b);
        }
        if start < end {
            left.push((start, end));
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_meet_and_part() {
        let (a, b) = (vec![(0, 4), (6, 9)], vec![(2, 7)]);
        assert_eq!(intersect(&a, &b), [(2, 4), (6, 7)]);
        assert_eq!(without(&a, &b), [(0, 2), (7, 9)]);
        assert!(overlaps(&a, 3, 5) && !overlaps(&a, 4, 6));
    }

    #[test]
    fn only_pages_that_differ_are_written() {
        let (mut wanted, seen) = (vec![0u8; 3 * PAGE], vec![0u8; 3 * PAGE]);
        wanted[PAGE] = 1;
        assert_eq!(run(&wanted, &seen), (PAGE, false));
        assert_eq!(run(&wanted[PAGE..], &seen[PAGE..]), (PAGE, true));
        assert_eq!(run(&wanted[2 * PAGE..], &[]), (PAGE, true), "what cannot be read is written");
    }
}
