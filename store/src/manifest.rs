//! Manifests: the small message that makes a snapshot.
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use nix::fcntl::FlockArg;
use prost::Message;

use crate::error::{Error, Result, io_error};
use crate::facts::{Meta, Snapshot, SnapshotState};
use crate::layout::{Lock, Store, VERSION, lock_open};
use crate::line::Line;
use crate::medium::{Medium, above};

const MAGIC: &[u8; 8] = b"SNAPDMF1";

/// What the file holds between its magic and its checksum.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Manifest {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    #[prost(string, tag = "2")]
    pub(crate) workload: String,
    #[prost(uint64, tag = "3")]
    pub(crate) seq: u64,
    #[prost(uint64, optional, tag = "4")]
    pub(crate) parent: Option<u64>,
    /// First and last of each span.
    #[prost(uint64, repeated, tag = "5")]
    pub(crate) line: Vec<u64>,
    #[prost(message, required, tag = "6")]
    pub(crate) facts: Facts,
    #[prost(uint64, tag = "7")]
    pub(crate) stored_bytes: u64,
    /// Opaque: the workload's definition.
    #[prost(bytes = "vec", tag = "8")]
    pub(crate) definition: Vec<u8>,
    #[prost(message, repeated, tag = "9")]
    pub(crate) streams: Vec<Stream>,
    /// The packs in which all of it lay when it was written. Pruning may move it.
    #[prost(string, repeated, tag = "10")]
    pub(crate) packs: Vec<String>,
    /// Length of the record, whose last pages may be zero.
    #[prost(uint64, tag = "11")]
    pub(crate) record_bytes: u64,
}

/// [`Meta`] on disk.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Facts {
    /// Microseconds since 1970.
    #[prost(int64, tag = "1")]
    taken_at: i64,
    #[prost(string, tag = "2")]
    trigger: String,
    #[prost(double, tag = "3")]
    pause_ms: f64,
    #[prost(double, tag = "4")]
    took_ms: f64,
    #[prost(uint64, tag = "5")]
    processes: u64,
    #[prost(uint64, tag = "6")]
    threads: u64,
    #[prost(uint64, tag = "7")]
    memory_bytes: u64,
    #[prost(uint64, tag = "8")]
    changed_bytes: u64,
    #[prost(string, tag = "9")]
    tracker: String,
    #[prost(string, repeated, tag = "10")]
    tags: Vec<String>,
    #[prost(string, repeated, tag = "11")]
    notes: Vec<String>,
}

/// A named sparse stream: the lists of its chunks, in order.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Stream {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// Names of chunks that hold a leaf each ([`crate::leaf`]).
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(crate) leaves: Vec<Vec<u8>>,
}

impl Facts {
    pub(crate) fn of(meta: Meta) -> Self {
        Self {
            taken_at: meta.taken_at.timestamp_micros(),
            trigger: meta.trigger.to_string(),
            pause_ms: meta.pause_ms,
            took_ms: meta.took_ms,
            processes: meta.processes,
            threads: meta.threads,
            memory_bytes: meta.memory_bytes,
            changed_bytes: meta.changed_bytes,
            tracker: meta.tracker.to_string(),
            tags: meta.tags,
            notes: meta.notes,
        }
    }

    fn meta(&self) -> Option<Meta> {
        Some(Meta {
            taken_at: DateTime::<Utc>::from_timestamp_micros(self.taken_at)?,
            trigger: self.trigger.parse().ok()?,
            pause_ms: self.pause_ms,
            took_ms: self.took_ms,
            processes: self.processes,
            threads: self.threads,
            memory_bytes: self.memory_bytes,
            changed_bytes: self.changed_bytes,
            tracker: self.tracker.parse().ok()?,
            tags: self.tags.clone(),
            notes: self.notes.clone(),
        })
    }
}

impl Manifest {
    /// Reads and checks one.
    pub(crate) fn read(store: &Store, workload: &str, seq: u64) -> Result<Self> {
        Self::read_at(store, &store.manifest(workload, seq), (workload, seq))
    }

    /// Likewise, of one that may have been forgotten meanwhile; `None` if it is gone for good.
    pub(crate) fn find(store: &Store, workload: &str, seq: u64) -> Result<Option<Self>> {
        for path in [store.manifest(workload, seq), store.gone(workload, seq)] {
            match Self::read_at(store, &path, (workload, seq)) {
                Err(Error::Missing { .. }) => {}
                found => return found.map(Some),
            }
        }
        Ok(None)
    }

    fn read_at(store: &Store, path: &Path, (workload, seq): (&str, u64)) -> Result<Self> {
        match std::fs::read(path) {
            Ok(bytes) => Self::decode_as(&bytes, path, (workload, seq)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::missing(store.dir(), format!("snapshot {workload}@{seq}")))
            }
            Err(error) => Err(io_error("read", path)(error)),
        }
    }

    /// Reads one and holds it: until the lock is dropped, nothing that it names is pruned.
    pub(crate) fn hold(store: &Store, workload: &str, seq: u64) -> Result<(Self, Lock)> {
        let path = store.manifest(workload, seq);
        let missing = || Error::missing(store.dir(), format!("snapshot {workload}@{seq}"));
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing()),
            Err(error) => return Err(io_error("open", &path)(error)),
        };
        let lock = lock_open(file, &path, FlockArg::LockShared)?;
        let failed = io_error("read", &path);
        if lock.metadata().map_err(&failed)?.nlink() == 0 {
            return Err(missing());
        }
        let mut bytes = Vec::new();
        (&*lock).read_to_end(&mut bytes).map_err(&failed)?;
        Ok((Self::decode_as(&bytes, &path, (workload, seq))?, lock))
    }

    fn decode_as(bytes: &[u8], path: &Path, (workload, seq): (&str, u64)) -> Result<Self> {
        let manifest = Self::decode_file(bytes, path)?;
        if manifest.workload != workload || manifest.seq != seq {
            return Err(Error::damaged(path, 0, "it is another snapshot's manifest"));
        }
        Ok(manifest)
    }

    /// Foreign bytes, of which nothing is trusted.
    pub(crate) fn decode_file(bytes: &[u8], path: &Path) -> Result<Self> {
        let damaged = |why| Error::damaged(path, 0, why);
        let body = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged("it is no manifest"))?;
        let (body, sum) =
            body.split_last_chunk::<32>().ok_or_else(|| damaged("it ends too early"))?;
        if blake3::hash(body).as_bytes() != sum {
            return Err(damaged("its checksum is wrong"));
        }
        let manifest = Self::decode(body).map_err(|_| damaged("it does not decode"))?;
        match manifest.version {
            VERSION => Ok(manifest),
            found => Err(Error::Newer { path: path.to_owned(), found, known: VERSION }),
        }
    }

    /// Writes the file under another name, and makes it durable: all but the commit.
    pub(crate) fn draft(&self, store: &Store) -> Result<Draft> {
        let body = self.encode_to_vec();
        let bytes = [MAGIC.as_slice(), &body, blake3::hash(&body).as_bytes()].concat();
        let path = store.manifest(&self.workload, self.seq);
        let draft = Draft { medium: store.medium().clone(), path };
        let beside = draft.beside();
        let file = draft.medium.create(&beside)?;
        draft.medium.write_at(&file, &beside, &[&bytes], 0)?;
        draft.medium.sync(&file, &beside)?;
        Ok(draft)
    }

    pub(crate) fn line(&self) -> Option<Line> {
        Line::from_spans(self.line.as_chunks::<2>().0.iter().map(|[first, last]| (*first, *last)))
    }

    /// As it is listed.
    pub(crate) fn snapshot(&self, path: &Path) -> Result<Snapshot> {
        let damaged = || Error::damaged(path, 0, "it says what cannot be");
        let id = blake3::hash(&self.encode_to_vec()).to_hex().to_string();
        Ok(Snapshot {
            workload: self.workload.clone(),
            seq: self.seq,
            id,
            parent: self.parent,
            line: self.line().ok_or_else(damaged)?,
            meta: self.facts.meta().ok_or_else(damaged)?,
            stored_bytes: self.stored_bytes,
            pinned: false,
            state: SnapshotState::Complete,
        })
    }
}

/// A manifest that is durable under another name; gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Draft {
    medium: Medium,
    path: PathBuf,
}

impl Draft {
    fn beside(&self) -> PathBuf {
        self.path.with_extension("tmp")
    }

    /// The commit point. Everything it names is durable by now.
    pub(crate) fn commit(self) -> Result<()> {
        self.medium.rename(&self.beside(), &self.path)?;
        self.medium.sync_dir(above(&self.path))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        drop(self.medium.remove(&self.beside()));
    }
}
