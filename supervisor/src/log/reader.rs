//! Reading: the log as a person wants to see it.
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::record::{HEAD, Record, Source};

/// A record, and what has become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The record.
    pub record: Record,
    /// Where it begins.
    pub position: u64,
    /// A restore has undone it.
    pub undone: bool,
}

/// All whole records of a log, as they are now.
pub fn visible(path: &Path) -> io::Result<Vec<Line>> {
    let mut bytes = Vec::new();
    let from = start(path)?;
    match File::open(path) {
        Ok(mut file) => {
            file.seek(SeekFrom::Start(from))?;
            file.read_to_end(&mut bytes)?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    Ok(apply(&bytes, from))
}

/// Where a log begins: its head is cut off when it grows too long.
pub fn start(path: &Path) -> io::Result<u64> {
    let mut head = [0; HEAD + 8];
    match File::open(path).and_then(|file| file.read_at(&mut head, 0)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    }
    Ok(Record::decode(&head).and_then(|(record, _)| record.goes_on_at()).unwrap_or(0))
}

/// Applies the marks in `bytes`, which begin at `position`. The beginning of a new run hides the
/// runs before it likewise.
#[must_use]
pub fn apply(mut bytes: &[u8], mut position: u64) -> Vec<Line> {
    let mut lines = Vec::new();
    while let Some((record, len)) = Record::decode(bytes) {
        let undone_from = match record.source {
            Source::Begin => Some(0),
            _ => record.undoes(),
        };
        if let Some(from) = undone_from {
            let since = lines.iter_mut().rev().take_while(|line: &&mut Line| line.position >= from);
            since.for_each(|line| line.undone = true);
        }
        lines.push(Line { record, position, undone: false });
        position += len as u64;
        bytes = bytes.get(len..).unwrap_or_default();
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::Writer;
    use super::*;

    fn text(path: &Path) -> String {
        let shown = visible(path).unwrap().into_iter();
        let shown = shown.filter(|line| !line.undone && line.record.source.is_output());
        shown.map(|line| String::from_utf8(line.record.bytes).unwrap()).collect()
    }

    #[test]
    fn what_is_left_reads_like_one_undisturbed_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut log = Writer::open(&path).unwrap();
        log.append(Source::Output, b"earlier").unwrap();
        log.begin().unwrap();
        log.append(Source::Output, b"one ").unwrap();
        let snapshot = log.position();
        log.append(Source::Output, b"two ").unwrap();
        assert_eq!(text(&path), "one two ");
        // Restored twice from the same snapshot: what came between is gone too.
        log.undo(snapshot).unwrap();
        log.append(Source::Error, b"two' ").unwrap();
        log.undo(snapshot).unwrap();
        log.append(Source::Output, b"two\" three").unwrap();
        assert_eq!(text(&path), "one two\" three");
        assert_eq!(visible(&path).unwrap().len(), 8);
    }

    #[test]
    fn a_log_that_grows_too_long_loses_its_head_and_its_blocks() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut log = Writer::open(&path).unwrap();
        log.limit(64 << 10);
        log.begin().unwrap();
        let mut snapshot = 0;
        for number in 0..10_000 {
            if number == 9_990 {
                snapshot = log.position();
            }
            log.append(Source::Output, format!("{number} {}\n", "x".repeat(50)).as_bytes())
                .unwrap();
        }
        assert!(std::fs::metadata(&path).unwrap().blocks() * 512 < 100 << 10);
        // It goes on after that, and can still be undone.
        drop(log);
        let mut log = Writer::open(&path).unwrap();
        log.undo(snapshot).unwrap();
        let text = text(&path);
        let first: u32 = text.split(' ').next().unwrap().parse().unwrap();
        assert!((9_000..9_900).contains(&first), "{first}");
        assert!(text.ends_with('\n') && text.lines().last().unwrap().starts_with("9989 "));
        assert_eq!(text.lines().count(), 9_990 - first as usize);
    }

    #[test]
    fn a_record_cut_short_is_dropped_and_the_log_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut log = Writer::open(&path).unwrap();
        log.append(Source::Output, b"whole ").unwrap();
        let good = log.position();
        log.append(Source::Output, b"cut short").unwrap();
        drop(log);
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(good + 15).unwrap();
        let mut log = Writer::open(&path).unwrap();
        assert_eq!(log.position(), good);
        log.append(Source::Output, b"after").unwrap();
        assert_eq!(text(&path), "whole after");
    }
}
