//! A workload's log: what it wrote, and what of it was undone.
//!
//! One file, only ever appended to, of records `{len, stream, time, bytes}` ([`record`]). A restore
//! appends a mark "all from this position on is undone"; a reader applies the marks, so that what is
//! left reads like one undisturbed run. Positions are lengths of the file, and a snapshot carries
//! the one it was taken at. A record that a crash cut short is dropped at the next opening.
//!
//! It does not grow for ever: beyond a limit the older half of it is punched out. Positions stay;
//! a mark at the very beginning says where it goes on.
pub mod reader;
pub mod record;
mod writer;

pub use reader::{Line, start, visible};
pub use record::{Record, Source};
pub use writer::Writer;
