//! What an inode has besides its contents: to be put back where one is made anew.
//!
//! The change time cannot be put back, and the access time is changed by our own reading.
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, UtimensatFlags, fchmodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, chown};

use crate::error::{Result, kernel};

/// Owner, permissions and times.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Attributes {
    #[prost(uint32, tag = "1")]
    mode: u32,
    #[prost(uint32, tag = "2")]
    uid: u32,
    #[prost(uint32, tag = "3")]
    gid: u32,
    /// Seconds and nanoseconds of `st_mtime`.
    #[prost(int64, tag = "4")]
    modified: i64,
    #[prost(int64, tag = "5")]
    modified_nanos: i64,
}

impl Attributes {
    pub(super) fn of(stat: &FileStat) -> Self {
        Self {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            modified: stat.st_mtime,
            modified_nanos: stat.st_mtime_nsec,
        }
    }

    /// Puts them back; by path, because `fd` may be one of `O_PATH`. The owner comes first: chown(2)
    /// takes setuid bits away.
    pub(super) fn apply(&self, fd: BorrowedFd<'_>) -> Result<()> {
        let path = &*format!("/proc/self/fd/{}", fd.as_raw_fd());
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        chown(path, Some(uid), Some(gid)).map_err(kernel("chown"))?;
        let (mode, follow) = (Mode::from_bits_truncate(self.mode), FchmodatFlags::FollowSymlink);
        fchmodat(AT_FDCWD, path, mode, follow).map_err(kernel("fchmodat"))?;
        let modified = TimeSpec::new(self.modified, self.modified_nanos);
        let follow = UtimensatFlags::FollowSymlink;
        utimensat(AT_FDCWD, path, &TimeSpec::UTIME_OMIT, &modified, follow)
            .map_err(kernel("utimensat"))
    }
}
