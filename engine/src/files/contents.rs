//! What a file holds, on its way to a sink.
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::error::{Error, Result};
use crate::image::{Contents, ImageSink, Origin, Run};
use crate::sparse::{data, read};

/// How much is read at once.
const WINDOW: usize = 1 << 20;
/// Of larger files the sink's threads read: two are twice as fast as one, which matters in a pause.
const LARGE: u64 = 16 << 20;

/// Gives the data of a file, not its holes, up to `size`: what is appended meanwhile is not ours. All of it
/// has been read then. How much it is.
pub(super) fn give(
    file: &File,
    path: &Path,
    size: u64,
    to: Contents,
    sink: &mut dyn ImageSink,
) -> Result<u64> {
    let runs = data(file, size)?;
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
    let runs = data(&file, size)?;
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

fn length(runs: &[Run]) -> u64 {
    runs.iter().map(|(_, len)| *len as u64).sum()
}
