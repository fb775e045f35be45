//! What the supervisor holds outside the tree, and gives again at a restore: the far ends of a
//! workload's standard streams.
use std::os::fd::OwnedFd;

/// One such thing. At a checkpoint an object that `fd` refers to the other end of is no obstacle: it
/// is recorded by its key alone. At a restore the open file with that key is `fd` itself.
#[derive(Debug)]
pub struct External {
    /// Stable between checkpoint and restore, e.g. `stdio/0`.
    pub key: String,
    /// At a checkpoint: the supervisor's own descriptor of the workload's end (or the pty slave).
    /// At a restore: the new one to plant.
    pub fd: OwnedFd,
}
