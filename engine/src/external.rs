//! What the supervisor holds outside the tree, and gives again at a restore: the far ends of a
//! workload's standard streams.
//!
//! Whatever of the tree refers to such an object is recorded under its key, in place of the object's
//! own kind: nothing of it is read, and that its other end is held outside is no obstacle.
use std::os::fd::OwnedFd;

/// The kind of such objects in images.
pub const NAME: &str = "external";

/// One such thing.
#[derive(Debug)]
pub struct External {
    /// Stable between checkpoint and restore, e.g. `stdio/0`.
    pub key: String,
    /// At a checkpoint: the supervisor's own descriptor of the workload's end (or the pty slave).
    /// At a restore: the new one to plant.
    pub fd: OwnedFd,
}

impl External {
    /// Another one with a duplicate of the descriptor.
    pub fn try_clone(&self) -> std::io::Result<Self> {
        Ok(Self { key: self.key.clone(), fd: self.fd.try_clone()? })
    }
}

/// What is recorded of one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct State {
    /// [`External::key`].
    #[prost(string, tag = "1")]
    pub key: String,
}
