//! Input from a pipe, kept from the oldest snapshot on, so that it can be given again.
//!
//! `DIR/logs/NAME.input` holds the input at its own positions; what will not be needed again is
//! punched out, so that positions stay and space does not. `NAME.input-end` says that there was an
//! end. Bytes go from the pipe into the file in one step, by splice(2): whoever is killed has either
//! left them in the pipe or kept them.
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, SpliceFFlags, fallocate, splice};
use nix::unistd::{Whence, lseek, read};

/// Input kept.
#[derive(Debug)]
pub struct Spool {
    file: File,
    /// How much has come.
    end: u64,
    end_mark: PathBuf,
    ended: bool,
    enough: u64,
}

/// Less than this is not worth freeing.
const ENOUGH: u64 = 64 << 20;
/// File systems free blocks of this or less.
const BLOCK: u64 = 64 << 10;

impl Spool {
    /// Goes on with what is kept; `fresh`: begins anew.
    pub fn open(path: &Path, end_mark: &Path, fresh: bool) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(fresh).mode(0o600);
        let file = file.open(path)?;
        if fresh && end_mark.exists() {
            std::fs::remove_file(end_mark)?;
        }
        let (end, ended) = (file.metadata()?.len(), end_mark.exists());
        Ok(Self { file, end, end_mark: end_mark.to_owned(), ended, enough: ENOUGH })
    }

    /// Where what is kept begins.
    #[must_use]
    pub fn start(&self) -> u64 {
        let first = lseek(&self.file, 0, Whence::SeekData);
        first.ok().and_then(|at| at.try_into().ok()).unwrap_or(0)
    }

    /// How much has come.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Whether no more will.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Keeps some of what can be read from `origin` now; 0: that was all.
    pub fn take(&mut self, origin: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        let Ok(mut at) = i64::try_from(self.end) else { return Err(Errno::EFBIG.into()) };
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        match splice(origin, None, &self.file, Some(&mut at), most, flags) {
            // Not every file system can, and a socket cannot.
            Err(Errno::EINVAL) => self.copy(origin, most),
            Ok(len) => {
                self.end += len as u64;
                Ok(len)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn copy(&mut self, origin: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        let mut room = vec![0; most];
        let len = read(origin, &mut room)?;
        self.append(room.get(..len).unwrap_or_default())?;
        Ok(len)
    }

    /// Keeps more.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.end)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// That was all.
    pub fn finish(&mut self) -> io::Result<()> {
        self.ended = true;
        File::create(&self.end_mark).map(drop)
    }

    /// Some of what is kept from `position` on.
    pub fn read(&self, position: u64, room: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(room, position)
    }

    /// Frees what is before `position`, once that is much: as long as all is there, even a start from
    /// nothing gets it again. Whole blocks only, so that [`start`](Self::start) knows what is left.
    pub fn trim(&self, position: u64) -> io::Result<()> {
        let end = position.min(self.end) / BLOCK * BLOCK;
        let Ok(len @ 1..) = i64::try_from(end) else { return Ok(()) };
        if end < self.enough {
            return Ok(());
        }
        let how = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        Ok(fallocate(&self.file, how, 0, len)?)
    }

    /// As durable as the snapshot that speaks of it.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_kept_at_its_positions() {
        let dir = tempfile::tempdir().unwrap();
        let (path, mark) = (dir.path().join("input"), dir.path().join("end"));
        let mut spool = Spool::open(&path, &mark, true).unwrap();
        spool.append(&vec![7; 100_000]).unwrap();
        spool.trim(80_000).unwrap();
        assert_eq!(spool.start(), 0, "it is little");
        spool.enough = 1;
        spool.trim(80_000).unwrap();
        assert_eq!(spool.start(), 65_536);
        spool.finish().unwrap();
        let again = Spool::open(&path, &mark, false).unwrap();
        assert!(again.ended());
        assert_eq!(again.end(), 100_000);
        let mut room = [0; 4096];
        assert_eq!(again.read(98_192, &mut room).unwrap(), 1_808);
        assert_eq!(room[0], 7);
        assert_eq!(again.read(0, &mut room).unwrap(), 4096);
        assert_eq!(room[0], 0);
        assert!(!Spool::open(&path, &mark, true).unwrap().ended());
    }

    #[test]
    fn pipes_and_sockets_are_emptied_into_it() {
        use std::io::Write;
        use std::os::fd::AsFd;
        let dir = tempfile::tempdir().unwrap();
        let (path, mark) = (dir.path().join("input"), dir.path().join("end"));
        let mut spool = Spool::open(&path, &mark, true).unwrap();
        let (read, mut write) = io::pipe().unwrap();
        let (one, mut other) = std::os::unix::net::UnixStream::pair().unwrap();
        write.write_all(b"by pipe ").unwrap();
        other.write_all(b"by socket").unwrap();
        assert_eq!(spool.take(read.as_fd(), 3).unwrap(), 3);
        assert_eq!(spool.take(read.as_fd(), 100).unwrap(), 5);
        assert_eq!(spool.take(one.as_fd(), 100).unwrap(), 9);
        drop(write);
        assert_eq!(spool.take(read.as_fd(), 100).unwrap(), 0);
        assert_eq!(std::fs::read(&path).unwrap(), b"by pipe by socket");
    }
}
