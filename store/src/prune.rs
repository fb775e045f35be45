//! Forgetting snapshots, and freeing what nobody needs any more.
//!
//! Forgetting removes a manifest. Pruning looks which chunks the remaining manifests name: a pack
//! without any goes, one that is mostly dead is written anew without the dead. It is safe to stop at
//! any moment: a pack is removed only after what it still had is durable elsewhere.
use std::collections::HashSet;
use std::path::PathBuf;

use crate::chunk::Name;
use crate::error::{Result, io_error};
use crate::layout::{self, Store};
use crate::manifest::Manifest;
use crate::pack::{self, Index, PackWriter};
use crate::reader::Reader;

/// What pruning did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Packs that are gone.
    pub packs: u64,
    /// Bytes that are free again.
    pub bytes: u64,
}

/// What becomes of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    Goes,
    IsWrittenAnew,
}

/// Pure: from how many bytes are live of how many.
fn fate(live: u64, all: u64) -> Fate {
    match (live, all) {
        (0, _) => Fate::Goes,
        (live, all) if live * 2 < all => Fate::IsWrittenAnew,
        _ => Fate::Stays,
    }
}

impl Store {
    /// Removes snapshots. Their space is free after [`prune`](Self::prune).
    pub fn forget(&self, workload: &str, numbers: &[u64]) -> Result<()> {
        let newest = self.numbers(workload)?.last().copied().unwrap_or(0);
        let next = self.folder(workload).join("next");
        if !next.exists() && newest > 0 {
            layout::write_whole(&next, format!("{}\n", newest + 1).as_bytes())?;
        }
        for seq in numbers {
            let path = self.manifest(workload, *seq);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(io_error("remove", &path)(error));
                }
                _ => {}
            }
        }
        if numbers.is_empty() { Ok(()) } else { layout::sync_dir(&self.folder(workload)) }
    }

    /// Frees space; `None` if somebody reads or writes: later, then.
    pub fn prune(&self) -> Result<Option<Pruned>> {
        let Some(_lock) = self.try_own()? else { return Ok(None) };
        self.remove_leftovers()?;
        let index = Index::load(self)?;
        let live = self.live(&index)?;
        let mut sizes = vec![(0u64, 0u64); index.packs.len()];
        for (name, location) in &index.chunks {
            if let Some((alive, all)) = sizes.get_mut(location.pack as usize) {
                *all += u64::from(location.stored);
                *alive += if live.contains(name) { u64::from(location.stored) } else { 0 };
            }
        }
        let mut pruned = Pruned::default();
        for (number, (alive, all)) in sizes.iter().enumerate() {
            let Some((path, _)) = index.packs.get(number) else { continue };
            let fate = fate(*alive, *all);
            if fate == Fate::IsWrittenAnew {
                self.write_anew(&index, number, &live)?;
            }
            if fate != Fate::Stays {
                pack::remove(path)?;
                pruned.packs += 1;
                pruned.bytes += all - alive;
            }
        }
        if pruned.packs > 0 {
            layout::sync_dir(&self.packs())?;
        }
        Ok(Some(pruned))
    }

    /// Names of all chunks that some snapshot needs. A damaged manifest ends this: what it needed is
    /// unknown, so nothing is freed.
    fn live(&self, index: &Index) -> Result<HashSet<Name>> {
        let mut live = HashSet::new();
        for workload in self.names()? {
            for seq in self.numbers(&workload)? {
                let manifest = Manifest::read(self, &workload, seq)?;
                Reader::needs_of(self, &manifest, index, &mut live)?;
            }
        }
        Ok(live)
    }

    fn write_anew(&self, index: &Index, number: usize, live: &HashSet<Name>) -> Result<()> {
        let mut pack = PackWriter::create(self)?;
        let here = |(_, location): &(&Name, &pack::Location)| location.pack as usize == number;
        for (name, _) in index.chunks.iter().filter(here).filter(|(name, _)| live.contains(name)) {
            let bytes = index.read(name, self)?;
            let (codec, stored) = crate::chunk::pack(&bytes);
            pack.append(*name, codec, bytes.len(), &stored)?;
        }
        pack.finish().map(drop)
    }

    /// Packs that a dead writer left half-made. Nobody else is here.
    fn remove_leftovers(&self) -> Result<()> {
        let names = layout::listed(&self.packs())?;
        let orphan = |name: &&String| {
            let pack = name.strip_suffix(".index").map(|stem| format!("{stem}.pack"));
            name.strip_suffix(".tmp").is_some() || pack.is_some_and(|pack| !names.contains(&pack))
        };
        let paths = names.iter().filter(orphan).map(|name| self.packs().join(name));
        paths
            .collect::<Vec<PathBuf>>()
            .iter()
            .try_for_each(|path| std::fs::remove_file(path).map_err(io_error("remove", path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_goes_when_it_is_mostly_dead() {
        assert_eq!(fate(0, 10), Fate::Goes);
        assert_eq!(fate(4, 10), Fate::IsWrittenAnew);
        assert_eq!(fate(5, 10), Fate::Stays);
        assert_eq!(fate(10, 10), Fate::Stays);
    }
}
