//! Facts and a time in, verdicts out.
//!
//! Nothing here reads a file, a clock or a process: what the supervisor decides can be tested, and
//! shown beforehand, without running anything. Each module is one rule of the command line.
#![forbid(unsafe_code)]

pub mod backoff;
pub mod choice;
pub mod duration;
pub mod name;
pub mod restart;
pub mod retention;
pub mod schedule;
pub mod size;

/// A value that means nothing here: which, and what would.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {accepted}")]
pub struct Unaccepted {
    /// What was given.
    pub value: String,
    /// What is accepted, with examples.
    pub accepted: &'static str,
}

impl Unaccepted {
    fn new(value: &str, accepted: &'static str) -> Self {
        Self { value: value.to_owned(), accepted }
    }
}
