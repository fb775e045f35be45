//! Files with holes: where they hold anything, and reading that.
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use crate::error::{Error, Result, kernel};
use crate::image::{Run, each};

/// Runs begin at pages.
const PAGE: u64 = 4096;

/// Where there are data before `size`.
pub(crate) fn data(file: &File, size: u64) -> Result<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    let mut told = 0;
    while let Some((start, end)) = next_data(file, told)?.filter(|(start, _)| *start < size) {
        // Holes need not end where pages do.
        let start = told.max(start - start % PAGE);
        let end = end.next_multiple_of(PAGE).min(size);
        let len = usize::try_from(end - start).unwrap_or(usize::MAX);
        match runs.last_mut() {
            Some((at, before)) if *at + *before as u64 == start => *before += len,
            _ => runs.push((start, len)),
        }
        told = end;
    }
    Ok(runs)
}

/// The next stretch of data at or behind `at`.
pub(crate) fn next_data(file: &File, at: u64) -> Result<Option<(u64, u64)>> {
    let offset = |at: u64| i64::try_from(at).map_err(|_| Error::Kernel("lseek", Errno::EOVERFLOW));
    let start = match lseek(file, offset(at)?, Whence::SeekData) {
        Ok(start) => start,
        Err(Errno::ENXIO) => return Ok(None),
        Err(errno) => return Err(Error::Kernel("lseek", errno)),
    };
    let end = lseek(file, start, Whence::SeekHole).map_err(kernel("lseek"))?;
    Ok(Some((start.unsigned_abs(), end.unsigned_abs())))
}

/// Reads runs; of what was cut off meanwhile, by those who have the file too, zeros.
pub(crate) fn read(file: &File, runs: &[Run], room: &mut [u8]) -> io::Result<()> {
    each(runs, room, |mut at, mut part| {
        while !part.is_empty() {
            match file.read_at(part, at) {
                Ok(0) => break,
                Ok(got) => {
                    part = part.get_mut(got..).unwrap_or_default();
                    at += got as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        part.fill(0);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};

    #[test]
    fn runs_are_whole_pages_but_for_the_last() {
        let file = tempfile::tempfile().unwrap();
        for at in [5_000, 200_000, 1 << 20] {
            file.write_all_at(b"data", at).unwrap();
        }
        let size = file.metadata().unwrap().len();
        let found = data(&file, size).unwrap();
        assert!(found.iter().all(|(at, _)| at % PAGE == 0), "{found:?}");
        assert!(found.windows(2).all(|two| two[0].0 + (two[0].1 as u64) < two[1].0), "{found:?}");
        let has =
            |at: u64| found.iter().any(|(from, len)| (*from..from + *len as u64).contains(&at));
        assert!(has(5_000) && has(200_003) && has((1 << 20) + 3) && !has(size));
        assert_eq!(
            data(&file, 5_001).unwrap().last().map(|(at, len)| at + *len as u64),
            Some(5_001)
        );
    }

    #[test]
    fn what_was_cut_off_meanwhile_is_zeros() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 10], 0).unwrap();
        let mut room = [1; 12];
        read(&file, &[(0, 4), (8, 8)], &mut room).unwrap();
        assert_eq!(room, [7, 7, 7, 7, 7, 7, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn holes_stay_holes() {
        let file = memfd_create("", MFdFlags::empty()).unwrap();
        let copy = File::from(file);
        copy.set_len(1 << 30).unwrap();
        copy.write_all_at(b"data", (1 << 20) + 5).unwrap();
        assert_eq!(data(&copy, 1 << 30).unwrap(), [(1 << 20, 4096)]);
        let mut room = vec![1; 4096];
        read(&copy, &[(1 << 20, 4096)], &mut room).unwrap();
        assert_eq!(&room[5..10], b"data\0");
    }
}
