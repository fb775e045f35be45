//! Appending. Only the shim does, which holds the workload's lock.
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::{FallocateFlags, fallocate};

use super::record::{HEAD, MAX, Record, Source};

/// How much is kept, at most.
const LIMIT: u64 = 64 << 20;
/// What lies before this is not punched out: the mark that says where the log goes on.
const BLOCK: u64 = 4096;

/// A log being written.
#[derive(Debug)]
pub struct Writer {
    file: File,
    /// The same, not only for appending.
    head: File,
    start: u64,
    position: u64,
    limit: u64,
}

impl Writer {
    /// Opens it at its end, which is behind the last whole record.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).mode(0o600).open(path)?;
        let start = super::start(path)?;
        let position = whole(&file, start)?;
        if file.metadata()?.len() > position {
            file.set_len(position)?;
        }
        let head = OpenOptions::new().write(true).open(path)?;
        Ok(Self { file, head, start, position, limit: LIMIT })
    }

    #[cfg(test)]
    pub(super) fn limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Length of the log.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Adds what the workload wrote.
    pub fn append(&mut self, source: Source, bytes: &[u8]) -> io::Result<()> {
        bytes
            .chunks(MAX)
            .try_for_each(|bytes| self.add(&Record { source, time: now(), bytes: bytes.to_vec() }))
    }

    /// Marks the beginning of a run.
    pub fn begin(&mut self) -> io::Result<()> {
        self.add(&Record { source: Source::Begin, time: now(), bytes: Vec::new() })
    }

    /// Marks what was written from `position` on as undone.
    pub fn undo(&mut self, position: u64) -> io::Result<()> {
        self.add(&Record::undone(position, now()))
    }

    /// Makes it as durable as the snapshot that speaks of it.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn add(&mut self, record: &Record) -> io::Result<()> {
        let bytes = record.encode();
        let written = self.file.write_all(&bytes);
        if written.is_err() {
            // Half a record would hide all that comes after it.
            let _ = self.file.set_len(self.position);
        }
        written?;
        self.position += bytes.len() as u64;
        if self.position - self.start > self.limit {
            self.cut()?;
        }
        Ok(())
    }

    /// Removes the older half.
    fn cut(&mut self) -> io::Result<()> {
        let (mut at, enough) = (self.start, self.position - self.limit / 2);
        while at < enough {
            let mut len = [0; 4];
            self.file.read_exact_at(&mut len, at)?;
            at += HEAD as u64 + u64::from(u32::from_le_bytes(len));
        }
        self.head.write_all_at(&Record::cut(at, now()).encode(), 0)?;
        self.start = at;
        let how = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        if let (Ok(from), Ok(len @ 1..)) = (BLOCK.try_into(), at.saturating_sub(BLOCK).try_into()) {
            // Not every file system can: then it only looks shorter.
            let _ = fallocate(&self.head, how, from, len);
        }
        Ok(())
    }
}

/// Where the last whole record ends.
fn whole(file: &File, start: u64) -> io::Result<u64> {
    let (mut file, mut position) = (BufReader::new(file), start);
    file.seek(SeekFrom::Start(start))?;
    let len = file.get_ref().metadata()?.len();
    let mut head = [0; HEAD];
    while file.read_exact(&mut head).is_ok() {
        let body = head.first_chunk::<4>().map_or(0, |len| u64::from(u32::from_le_bytes(*len)));
        let end = position + HEAD as u64 + body;
        if body > MAX as u64 || end > len {
            break;
        }
        file.seek_relative(i64::try_from(body).unwrap_or(i64::MAX))?;
        position = end;
    }
    Ok(position)
}

#[allow(clippy::disallowed_methods)]
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
