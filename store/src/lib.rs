//! Image <-> disk: a directory of deduplicated snapshots.
//!
//! Knows nothing of processes. FORMAT.md describes the bytes, the commit protocol and what is
//! assumed of the medium.
#![forbid(unsafe_code)]

mod api;
mod error;
mod facts;
mod line;

pub use api::{NewSnapshot, Options, Reader, Sealed, Store, StreamInfo, Writer};
pub use error::{Error, Result};
pub use facts::{
    Event, EventKind, Meta, Snapshot, SnapshotState, Tracker, Trigger, UnknownWord, Workload,
};
pub use line::Line;
