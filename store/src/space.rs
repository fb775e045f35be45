//! Snapshots never fill the disk: 5 %, at most 1 GiB, stays free.
use std::path::Path;

use nix::sys::statvfs::statvfs;

use crate::error::{Error, Result, io_error};

/// Refuses when less than the reserve is free.
pub(crate) fn check_reserve(dir: &Path) -> Result<()> {
    let fs = statvfs(dir).map_err(|errno| io_error("statvfs", dir)(errno.into()))?;
    let free = fs.blocks_available() * fs.fragment_size();
    let reserve = (fs.blocks() * fs.fragment_size() / 20).min(1 << 30);
    if free < reserve {
        return Err(Error::Reserve { path: dir.to_owned(), free, reserve });
    }
    Ok(())
}
