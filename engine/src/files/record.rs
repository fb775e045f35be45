//! What is remembered of files, and when a later look may trust it.
use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::inventory::FileId;

/// Everything remembered, in ascending order of paths.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Files {
    /// Absolute paths whose trees are part of the state, whether or not they existed.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub tracked: Vec<Vec<u8>>,
    /// What there was.
    #[prost(message, repeated, tag = "2")]
    pub entries: Vec<Entry>,
}

/// What a name stood for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
pub enum EntryKind {
    /// Left alone: sockets and devices.
    Other = 0,
    /// Contents are in the stream of its id; names of one file share it.
    Regular = 1,
    /// In a tracked tree.
    Directory = 2,
    /// Likewise.
    Symlink = 3,
    /// Likewise.
    Fifo = 4,
}

/// One name.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Entry {
    /// Absolute.
    #[prost(bytes = "vec", tag = "1")]
    pub path: Vec<u8>,
    /// What it stood for.
    #[prost(enumeration = "EntryKind", tag = "2")]
    pub kind: i32,
    /// The stream of a regular file's contents.
    #[prost(uint32, tag = "3")]
    pub id: u32,
    /// Permission bits.
    #[prost(uint32, tag = "4")]
    pub mode: u32,
    /// Owner.
    #[prost(uint32, tag = "5")]
    pub uid: u32,
    /// Group.
    #[prost(uint32, tag = "6")]
    pub gid: u32,
    /// How many names it had, known or not.
    #[prost(uint64, tag = "7")]
    pub nlink: u64,
    /// Last read, in nanoseconds.
    #[prost(int64, tag = "8")]
    pub atime: i64,
    /// What tells a later look whether it changed.
    #[prost(message, required, tag = "9")]
    pub stamp: Stamp,
    /// Of a symbolic link.
    #[prost(bytes = "vec", tag = "10")]
    pub target: Vec<u8>,
    /// Whether an equal stamp proves equal contents: see [`Stamp::settled`].
    #[prost(bool, tag = "11")]
    pub settled: bool,
    /// The tree only read it: it is put back if it is gone, and otherwise none of our business.
    #[prost(bool, tag = "12")]
    pub read_only: bool,
}

/// Device and number.
pub(super) type Inode = (u64, u64);

/// Identity and times of a file.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Stamp {
    /// `st_dev`.
    #[prost(uint64, tag = "1")]
    pub device: u64,
    /// `st_ino`.
    #[prost(uint64, tag = "2")]
    pub inode: u64,
    /// Length.
    #[prost(uint64, tag = "3")]
    pub size: u64,
    /// Last write, in nanoseconds.
    #[prost(int64, tag = "4")]
    pub mtime: i64,
    /// Last change, likewise.
    #[prost(int64, tag = "5")]
    pub ctime: i64,
}

/// Before multigrain timestamps (6.13) times tick with the jiffy, of 10 ms at most: a change within
/// two of them of our look could leave the same time.
const TICKS_NANOS: i64 = 20_000_000;
const NANOS: i64 = 1_000_000_000;

impl Stamp {
    /// Of what was seen.
    #[must_use]
    pub fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            mtime: meta.mtime() * NANOS + meta.mtime_nsec(),
            ctime: meta.ctime() * NANOS + meta.ctime_nsec(),
        }
    }

    /// Whether a change after `looked_at` (nanoseconds of real time) would have to show in it.
    #[must_use]
    pub fn settled(&self, looked_at: i64) -> bool {
        looked_at - self.ctime > TICKS_NANOS
    }
}

impl Entry {
    /// Of what was seen at `path`; `None` for what is left alone.
    pub(super) fn of(path: &Path, meta: &Metadata) -> Self {
        let kind = match meta.file_type() {
            t if t.is_file() => EntryKind::Regular,
            t if t.is_dir() => EntryKind::Directory,
            t if t.is_symlink() => EntryKind::Symlink,
            t if t.is_fifo() => EntryKind::Fifo,
            _ => EntryKind::Other,
        };
        Self {
            path: path.as_os_str().as_bytes().to_vec(),
            kind: kind.into(),
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            nlink: meta.nlink(),
            atime: meta.atime() * NANOS + meta.atime_nsec(),
            stamp: Stamp::of(meta),
            ..Self::default()
        }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }

    /// The stream of its contents.
    #[must_use]
    pub fn file(&self) -> FileId {
        FileId(self.id)
    }
}

impl Files {
    /// Whether `path` is, or lies in, a tracked tree.
    #[must_use]
    pub fn tracks(&self, path: &Path) -> bool {
        self.tracked.iter().any(|root| path.starts_with(OsStr::from_bytes(root)))
    }
}
