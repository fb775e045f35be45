//! Contents of files as part of the state: what the program was writing goes back to what it held.
//!
//! [`Capture`] reads them: before the pause while the program runs, and inside it only what has
//! changed since, so that memory and files belong to one instant; large files that change all the time are
//! read after it ([`Twins`]), where the file system can hold them. [`roll_back`] puts them back before
//! the restored program runs, and keeps what it overwrites or removes beside ([`Undone`]).
//!
//! Two sorts: named regular files that the tree has open for writing or mapped shared and writable;
//! and whole *tracked* trees, where also existence and names are put back. Deleted files are no
//! business of this module: they belong to the object that holds them open.
//!
//! Not put back: extended attributes, access control lists, change time.
mod candidates;
mod capture;
mod contents;
mod foreseen;
mod fresh;
mod plan;
mod record;
mod rewrite;
mod rollback;
mod scan;
mod shared;
mod twin;
mod undone;
mod writers;

pub use self::candidates::{Candidate, of_running};
pub(crate) use self::candidates::{began, is_own};
pub use self::capture::{Capture, Captured, Selection};
pub use self::foreseen::{AsBefore, Looked};
pub use self::fresh::{names, remove_born_since};
pub use self::plan::{Action, plan};
pub use self::record::{Entry, EntryKind, Files, Stamp};
pub use self::rollback::{RollBack, Summary, roll_back, would_change};
pub use self::twin::Twins;
pub use self::undone::Undone;
pub use self::writers::outside_writers;

#[cfg(test)]
mod tests;
