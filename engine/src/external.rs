//! What a tree shares with its supervisor, which is outside: its standard streams.
//!
//! A pipe or terminal with its other end outside the tree is an obstacle, unless the supervisor says
//! that this end is its own: it drains the output before a snapshot and remembers how far the input
//! was given, so there is nothing to save but the name. After a restore the supervisor has a new
//! pipe or terminal under the same name, and that takes the old one's place.
//!
//! - *Checkpoint*: `fd` is any descriptor of ours of the same object. A pipe or a terminal matches by
//!   inode (both ends of a pipe have one inode; for a terminal `fd` is a slave of our own opening,
//!   whatever other open files of that slave the tree has); a regular file matches only if it is the
//!   same *open file* (kcmp), for other openings of that file are the tree's own.
//! - *Restore*: `fd` is the tree's side: a pipe's end, a slave, the very open file that the shells
//!   outside share. Where the image names a key that is not given, the object has to stand on its
//!   own: a regular file is opened by its path; a pipe or terminal is refused.
//!
//! Flags and positions of open files are the tree's and are saved as ever. A terminal's settings are
//! part of the state too; what was typed and not yet read is not.
use std::os::fd::OwnedFd;

/// One object that the supervisor holds the other end of.
#[derive(Debug)]
pub struct External {
    /// Its name in the image: `stdio/0`, `stdio/1`, `stdio/2`, or `stdio/tty`, which may stand for all
    /// three.
    pub key: String,
    /// See above: ours at a checkpoint, the tree's at a restore.
    pub fd: OwnedFd,
}
