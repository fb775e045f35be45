//! From an image to running processes: all of them, or nothing.
use std::os::fd::OwnedFd;

use crate::error::{Error, Result};
use crate::external::External;
use crate::image::ImageSource;
use crate::inventory::Pid;

/// Whose child a restored root becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parentage {
    /// Ours.
    Child,
    /// Our parent's (`CLONE_PARENT`): the worker restores for the shim.
    Sibling,
}

/// How to restore.
#[derive(Debug)]
pub struct Options {
    /// Whose child.
    pub parentage: Parentage,
    /// Go on with the image's monotonic and boot time, in a time namespace of its own.
    pub continue_clocks: bool,
    /// Take changed executables, libraries and read-only files as they are.
    pub accept_changed: bool,
    /// Established connections are given back closed.
    pub close_tcp: bool,
    /// What the supervisor holds outside the tree.
    pub externals: Vec<External>,
    /// `--shell-job`: takes the place of a terminal that was held outside.
    pub terminal: Option<OwnedFd>,
}

/// What was brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The roots, running.
    pub roots: Vec<Pid>,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

/// Brings the tree of `image` back. Everything that can be refused is refused before anything is
/// started; if we die on the way, nothing of the tree is left, or all of it runs.
pub fn restore(_image: &dyn ImageSource, _options: &Options) -> Result<Restored> {
    Err(Error::Sketch("restoring"))
}
