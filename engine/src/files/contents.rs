//! What a file holds, on its way to a sink.
use std::fs::File;
use std::io;
use std::mem::take;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::unistd::{Whence, lseek};

use crate::error::{Error, Result, kernel};
use crate::image::{Contents, ImageSink, Origin, Run};

/// How much is read at once.
const WINDOW: usize = 1 << 20;
/// Of larger files the sink's threads read: two are twice as fast as one, which matters in a pause.
const LARGE: u64 = 16 << 20;
/// Runs begin at pages.
const PAGE: u64 = 4096;

/// Gives the data of a file, not its holes, up to `size`: what is appended meanwhile is not ours. All of it
/// has been read then. How much it is.
pub(super) fn give(
    file: &File,
    path: &Path,
    size: u64,
    to: Contents,
    sink: &mut dyn ImageSink,
) -> Result<u64> {
    let runs = runs(file, size)?;
    let bytes = length(&runs);
    if bytes > LARGE {
        let file = file.try_clone().map_err(Error::file("dup", path))?;
        let origin: Origin = Arc::new(move |runs, room| read(&file, runs, room));
        sink.runs(to, &runs, &origin)?;
        sink.settle()?;
        return Ok(bytes);
    }
    let mut room = vec![0; WINDOW.min(usize::try_from(bytes).unwrap_or(WINDOW))];
    for (mut at, mut len) in runs {
        while len > 0 {
            let part = room.get_mut(..len.min(WINDOW)).unwrap_or_default();
            read(file, &[(at, part.len())], part).map_err(Error::file("read", path))?;
            sink.bytes(to, at, part)?;
            (at, len) = (at + part.len() as u64, len - part.len());
        }
    }
    Ok(bytes)
}

/// Announces the data of a file that nobody reads again: it leaves the page cache at once.
pub(super) fn give_once(
    file: File,
    size: u64,
    to: Contents,
    sink: &mut dyn ImageSink,
) -> Result<()> {
    let runs = runs(&file, size)?;
    let origin: Origin = Arc::new(move |runs, room| {
        read(&file, runs, room)?;
        for &(at, len) in runs {
            let [Ok(at), Ok(len)] = [i64::try_from(at), i64::try_from(len)] else { continue };
            posix_fadvise(&file, at, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        }
        Ok(())
    });
    Ok(sink.runs(to, &runs, &origin)?)
}

/// Where there are data before `size`.
fn runs(file: &File, size: u64) -> Result<Vec<Run>> {
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

fn length(runs: &[Run]) -> u64 {
    runs.iter().map(|(_, len)| *len as u64).sum()
}

/// Reads runs; of what was cut off meanwhile, zeros.
fn read(file: &File, runs: &[Run], room: &mut [u8]) -> io::Result<()> {
    let mut rest = room;
    for &(mut at, len) in runs {
        let (mut part, later) = take(&mut rest).split_at_mut_checked(len).unwrap_or_default();
        rest = later;
        while !part.is_empty() {
            match file.read_at(part, at) {
                Ok(0) => break,
                Ok(got) => {
                    part = take(&mut part).split_at_mut_checked(got).unwrap_or_default().1;
                    at += got as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        part.fill(0);
    }
    Ok(())
}

/// The next stretch of data at or behind `at`.
pub(super) fn next_data(file: &File, at: u64) -> Result<Option<(u64, u64)>> {
    let offset = |at: u64| i64::try_from(at).map_err(|_| Error::Kernel("lseek", Errno::EOVERFLOW));
    let start = match lseek(file, offset(at)?, Whence::SeekData) {
        Ok(start) => start,
        Err(Errno::ENXIO) => return Ok(None),
        Err(errno) => return Err(Error::Kernel("lseek", errno)),
    };
    let end = lseek(file, start, Whence::SeekHole).map_err(kernel("lseek"))?;
    Ok(Some((start.unsigned_abs(), end.unsigned_abs())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_whole_pages_but_for_the_last() {
        let file = tempfile::tempfile().unwrap();
        for at in [5_000, 200_000, 1 << 20] {
            file.write_all_at(b"data", at).unwrap();
        }
        let size = file.metadata().unwrap().len();
        let found = runs(&file, size).unwrap();
        assert!(found.iter().all(|(at, _)| at % PAGE == 0), "{found:?}");
        assert!(found.windows(2).all(|two| two[0].0 + (two[0].1 as u64) < two[1].0), "{found:?}");
        let has =
            |at: u64| found.iter().any(|(from, len)| (*from..from + *len as u64).contains(&at));
        assert!(has(5_000) && has(200_003) && has((1 << 20) + 3) && !has(size));
        assert_eq!(
            runs(&file, 5_001).unwrap().last().map(|(at, len)| at + *len as u64),
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
}
