//! Files that were looked at closely before the pause: in it nothing is asked of those that are as they were then.
use nix::sys::stat::FileStat;

use super::candidates::Candidate;
use super::record::Entry;
use crate::inventory::ObjectId;

/// A file that belongs to the state, and what was told of it.
#[derive(Debug, Clone)]
pub struct Looked {
    pub(crate) candidate: Candidate,
    pub(crate) stat: FileStat,
}

impl Looked {
    /// Whether an entry tells the same.
    pub(super) fn is_told_by(&self, entry: &Entry) -> bool {
        let Self { stat, .. } = self;
        let nanos = |seconds: i64, nanos: i64| seconds * 1_000_000_000 + nanos;
        let times = [
            nanos(stat.st_atime, stat.st_atime_nsec),
            nanos(stat.st_mtime, stat.st_mtime_nsec),
            nanos(stat.st_ctime, stat.st_ctime_nsec),
        ];
        let Entry { mode, uid, gid, nlink, atime, stamp, .. } = *entry;
        (stamp.device, stamp.inode) == (stat.st_dev, stat.st_ino)
            && (stamp.size, nlink) == (stat.st_size.cast_unsigned(), stat.st_nlink)
            && [mode, uid, gid] == [stat.st_mode & 0o7777, stat.st_uid, stat.st_gid]
            && [atime, stamp.mtime, stamp.ctime] == times
    }
}

/// Which files of a tree that stands are as they were when they were looked at: objects, ascending, and which of
/// those that were looked at each is, if it belongs to the state.
#[derive(Debug, Default)]
pub struct AsBefore(pub(crate) Vec<(ObjectId, Option<usize>)>);
