//! Between the engine's images and the store: the operations, composed of a session's steps.
use engine::external::External;
use engine::inventory::Pid;

use crate::error::{Error, Result};
use crate::home::Home;
use crate::wire::{Bring, Brought, Obstacle, Settled, Take, Taken};

/// Takes a snapshot of the tree under `roots`. `settle` is called while it stands still.
pub fn checkpoint(
    _home: &Home,
    _take: &Take,
    _roots: &[Pid],
    _externals: Vec<External>,
    _settle: &mut dyn FnMut() -> Result<Settled>,
) -> Result<Taken> {
    Err(Error::Refused("snapshots cannot be taken yet".into()))
}

/// Brings the workload of a snapshot back, as children of our parent.
pub fn restore(_home: &Home, _bring: &Bring, _externals: Vec<External>) -> Result<Brought> {
    Err(Error::Refused("snapshots cannot be restored yet".into()))
}

/// Says what is in the way of a snapshot.
pub fn inspect(_roots: &[Pid], _externals: &[External]) -> Result<Vec<Obstacle>> {
    Err(Error::Refused("obstacles cannot be looked for yet".into()))
}

/// Where log and input stood at a snapshot.
pub fn settled_at(_home: &Home, _name: &str, _seq: u64) -> Result<Settled> {
    Err(Error::Refused("snapshots cannot be restored yet".into()))
}
