//! Images on disk: deduplicated, compressed, committed by one rename.
//!
//! Every snapshot is complete: its manifest names chunks, chunks lie in packs, and a chunk is stored
//! once whoever needs it. `FORMAT.md` has the bytes, the order of writing and what is assumed of the
//! medium. This crate knows nothing of processes: streams have names and bytes, records are opaque.
//!
//! Readers, writers and pruning go on side by side, by locks that die with their process (`epoch.rs`);
//! one writer at a time holds a workload.
#![forbid(unsafe_code)]

mod api;
mod catalog;
mod chunk;
mod epoch;
mod error;
mod facts;
mod index;
mod layout;
mod leaf;
mod line;
mod manifest;
mod medium;
mod pack;
mod packer;
mod prune;
mod reader;
mod share;
mod space;
mod verify;
mod writer;

pub use self::api::{NewSnapshot, Options, StreamInfo};
pub use self::error::{Error, Result};
pub use self::facts::{
    Event, EventKind, Meta, Snapshot, SnapshotState, Tracker, Trigger, UnknownWord, Workload,
};
pub use self::layout::Store;
pub use self::line::Line;
pub use self::medium::{STEPS, Watch};
pub use self::packer::{Compression, Origin, Run};
pub use self::prune::Pruned;
pub use self::reader::Reader;
pub use self::writer::{Sealed, Writer};

#[cfg(test)]
mod tests;
