//! File locks: flock(2) and OFD locks belong to open files, POSIX locks to processes.
//!
//! Kernel: `fs/locks.c`; a `lock:` line of fdinfo is `1: OFDLCK ADVISORY  READ -1 fe:00:4711 100 119`
//! and tells of POSIX locks only to their owner. Locks of others in the same file are none of ours,
//! and a call that waits for one is made again. Leases are refused: they cannot be taken while others
//! have the file open, as our own coordinator may.
use nix::libc::{F_OFD_SETLK, F_RDLCK, F_SETLK, F_WRLCK, LOCK_EX, LOCK_NB, LOCK_SH, SEEK_SET};
use nix::libc::{SYS_fcntl, SYS_flock};

use crate::procfs::Fields;
use crate::remote::{Arg, Batch, RemoteFd};

/// Whether fdinfo tells of a lease: to open the file once more would have it broken, or wait for that.
pub(crate) fn is_leased(info: &str) -> bool {
    Fields::parse(info).take_all("lock").iter().any(|lock| lock.contains("LEASE"))
}

/// Whether fdinfo tells of any lock: what holds one is not to be held by others, or the lock would outlast it.
pub(crate) fn has_locks(info: &str) -> bool {
    !Fields::parse(info).take_all("lock").is_empty()
}

/// Whose lock it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Family {
    /// flock(2): the open file's.
    Flock = 0,
    /// `F_OFD_SETLK`: the open file's.
    Ofd = 1,
    /// `F_SETLK`: the process's.
    Posix = 2,
}

/// One lock that is held.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Lock {
    #[prost(enumeration = "Family", tag = "1")]
    family: i32,
    /// Exclusive rather than shared.
    #[prost(bool, tag = "2")]
    write: bool,
    #[prost(int64, tag = "3")]
    start: i64,
    /// Zero: up to the end, wherever that may be.
    #[prost(int64, tag = "4")]
    len: i64,
}

impl Lock {
    /// Reads the value of a `lock:` line; `None` for what is not one of the three families.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let [_, family, "ADVISORY", access, _, _, start, end] = words.as_slice() else {
            return None;
        };
        let family = match *family {
            "FLOCK" => Family::Flock,
            "OFDLCK" => Family::Ofd,
            "POSIX" => Family::Posix,
            _ => return None,
        };
        let start: i64 = start.parse().ok()?;
        let len = match *end {
            "EOF" => 0,
            end => end.parse::<i64>().ok()?.checked_sub(start)?.checked_add(1)?,
        };
        let write = match *access {
            "WRITE" => true,
            "READ" => false,
            _ => return None,
        };
        Some(Self { family: family.into(), write, start, len })
    }

    /// Adds the call that takes it, by the holder's number `at`.
    pub fn take(&self, at: RemoteFd, batch: &mut Batch) {
        let command = match self.family() {
            Family::Flock => {
                let how = if self.write { LOCK_EX } else { LOCK_SH };
                batch.call("flock", SYS_flock, [at.into(), (how | LOCK_NB).into()]);
                return;
            }
            Family::Ofd => F_OFD_SETLK,
            Family::Posix => F_SETLK,
        };
        let args = [at.into(), command.into(), Arg::In(self.flock())];
        batch.call("fcntl", SYS_fcntl, args);
    }

    /// `struct flock` of `include/uapi/asm-generic/fcntl.h`, where `off_t` has 64 bits.
    fn flock(&self) -> Vec<u8> {
        let kind = if self.write { F_WRLCK } else { F_RDLCK };
        let short = |word: i32| i16::try_from(word).unwrap_or_default().to_ne_bytes();
        let head = [short(kind), short(SEEK_SET), [0; 2], [0; 2]].concat();
        // The process is for answers only, and must be zero for OFD locks.
        [head, self.start.to_ne_bytes().into(), self.len.to_ne_bytes().into(), vec![0; 8]].concat()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// POSIX locks are the process's, and so are tests: those that take or count some do so alone.
    pub(crate) fn alone() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        ALONE.lock().unwrap_or_else(PoisonError::into_inner)
    }
    use crate::procfs::Fields;
    use crate::remote::Caller;
    use crate::sys::here::Here;
    use nix::libc;
    use std::os::fd::AsRawFd;

    #[test]
    fn all_families_are_read_as_they_were_taken() {
        let _alone = alone();
        assert_eq!(size_of::<libc::flock>(), Lock::default().flock().len());
        let lock =
            |family: Family, write, start, len| Lock { family: family.into(), write, start, len };
        for wanted in [
            lock(Family::Flock, true, 0, 0),
            lock(Family::Flock, false, 0, 0),
            lock(Family::Ofd, false, 100, 20),
            lock(Family::Ofd, true, 7, 0),
            lock(Family::Posix, true, 5, 10),
            lock(Family::Posix, false, 0, 0),
        ] {
            let file = tempfile::tempfile().unwrap();
            let mut batch = Batch::default();
            wanted.take(RemoteFd(file.as_raw_fd()), &mut batch);
            Here.perform(&batch).unwrap()[0].value().unwrap();
            let info = format!("/proc/self/fdinfo/{}", file.as_raw_fd());
            let info = std::fs::read_to_string(info).unwrap();
            let seen = Fields::parse(&info).take("lock").and_then(Lock::parse);
            assert_eq!(seen, Some(wanted));
        }
    }

    #[test]
    fn what_is_none_of_them_is_not_taken_for_one() {
        for line in [
            "1: LEASE  ACTIVE    READ  999 08:01:11 0 EOF",
            "1: POSIX  ADVISORY  NONE  999 08:01:11 0 EOF",
            "1: POSIX  ADVISORY  READ  999 08:01:11 9 x",
            "",
        ] {
            assert_eq!(Lock::parse(line), None, "{line}");
        }
    }
}
