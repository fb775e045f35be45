//! Sharing between stores: an image that is dumped again elsewhere costs what has changed.
//!
//! Packs never change once they are in place, so another store may have them by another name of the
//! same file. What of them the new snapshot does not need goes with the next pruning.
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::epoch;
use crate::error::{Result, io_error};
use crate::layout::{Store, listed};
use crate::pack;

impl Store {
    /// Takes over all packs of another store, whose chunks then need not be stored again.
    pub fn share_packs_of(&self, other: &Self) -> Result<()> {
        let (_held, condemned) = epoch::join(other)?; // So that nothing is pruned under our hands.
        // Packs first: an index without its pack would promise what is not there.
        for name in listed(&other.packs())?.iter().filter(|name| pack::is_pack(name)) {
            let (from, to) = (other.packs().join(name), self.packs().join(name));
            if condemned.has(name) || pack::distrust_path(&from).exists() {
                continue;
            }
            take_over(&from, &to)?;
            let (from, to) = (pack::index_path(&from), pack::index_path(&to));
            if from.exists() {
                take_over(&from, &to)?;
            }
        }
        Ok(())
    }
}

/// By a link; by a copy where there can be none.
fn take_over(from: &Path, to: &Path) -> Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(_) => {
            let beside = to.with_extension("copy");
            fs::copy(from, &beside).map_err(io_error("copy", from))?;
            let file = fs::File::open(&beside).map_err(io_error("open", &beside))?;
            file.sync_all().map_err(io_error("sync", &beside))?;
            fs::rename(&beside, to).map_err(io_error("rename", to))
        }
        Ok(()) => Ok(()),
    }
}
