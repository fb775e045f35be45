//! Forgetting snapshots, and freeing what nobody needs any more.
//!
//! Forgetting removes a manifest. Pruning looks which chunks the remaining manifests name: a pack
//! without any goes, one that is mostly dead is written anew without the dead, and many small ones
//! become one. It is safe to stop at any moment, and goes on beside readers and writers: a pack is
//! removed only after what it still had is durable elsewhere, and nobody can refer to it
//! ([`crate::epoch`]).
use std::path::{Path, PathBuf};

use crate::epoch::{self, Condemned};
use crate::error::{Error, Result};
use crate::index::{Index, Names};
use crate::layout::{self, Store};
use crate::leaf;
use crate::manifest::Manifest;
use crate::pack::{self, HEADER, Location, PackWriter};

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

/// At most so many bytes are written anew at a time: what is left is for the next time.
const ANEW: u64 = 256 << 20;
/// Packs smaller than this are joined when there are this many.
const SMALL: u64 = 4 << 20;
const MANY: usize = 32;

/// Pure: from how many bytes are live of how many, in each pack.
fn fates(sizes: &[(u64, u64)]) -> Vec<Fate> {
    let small = |live: u64, all: u64| live > 0 && all < SMALL;
    let many = sizes.iter().filter(|(live, all)| small(*live, *all)).count() >= MANY;
    let mut anew = 0;
    let fate = |&(live, all): &(u64, u64)| {
        let wasteful = live * 2 < all || (many && small(live, all));
        match live {
            0 => Fate::Goes,
            _ if wasteful && anew + live <= ANEW => {
                anew += live;
                Fate::IsWrittenAnew
            }
            _ => Fate::Stays,
        }
    };
    sizes.iter().map(fate).collect()
}

impl Store {
    /// Removes snapshots. Their space is free after [`prune`](Self::prune). What somebody is reading
    /// is no longer listed, and stays until that reader is done.
    pub fn forget(&self, workload: &str, numbers: &[u64]) -> Result<()> {
        let newest = self.numbers(workload)?.last().copied().unwrap_or(0);
        if numbers.contains(&newest) {
            self.keep_next(workload, newest + 1)?;
        }
        for seq in numbers {
            let path = self.manifest(workload, *seq);
            if !path.exists() {
                continue;
            }
            match layout::try_lock(&path)? {
                Some(_unread) => self.medium().remove(&path)?,
                None => self.medium().rename(&path, &self.gone(workload, *seq))?,
            }
        }
        if numbers.is_empty() { Ok(()) } else { self.medium().sync_dir(&self.folder(workload)) }
    }

    /// Makes the next number durable: the newest manifest will not tell it any more.
    fn keep_next(&self, workload: &str, next: u64) -> Result<()> {
        let (medium, path) = (self.medium(), self.folder(workload).join("next"));
        let _alone = self.lock_next(workload)?;
        match std::fs::File::open(&path) {
            // As it is since the commit: a full disk has no room for more than that.
            Ok(file) if self.told_next(workload) >= next => {
                medium.sync(&file, &path)?;
                medium.sync_dir(&self.folder(workload))
            }
            _ => medium.write_whole(&path, format!("{next}\n").as_bytes()),
        }
    }

    /// Writers and those who forget both write the file.
    fn lock_next(&self, workload: &str) -> Result<layout::Lock> {
        let path = self.folder(workload).join("lock.next");
        layout::lock(&path, nix::fcntl::FlockArg::LockExclusive)
    }

    /// What the file says, if it says anything.
    pub(crate) fn told_next(&self, workload: &str) -> u64 {
        let text = std::fs::read_to_string(self.folder(workload).join("next"));
        text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1)
    }

    /// Keeps the next number, without waiting for the disk: without it the newest manifest tells.
    pub(crate) fn remember_next(&self, workload: &str, next: u64) {
        let path = self.folder(workload).join("next");
        let beside = path.with_extension("tmp");
        let text = format!("{next}\n");
        let medium = self.medium();
        let keep = || {
            let _alone = self.lock_next(workload)?;
            let file = medium.create(&beside)?;
            medium.write_at(&file, &beside, &[text.as_bytes()], 0)?;
            medium.rename(&beside, &path)
        };
        if let Err(error) = keep() {
            tracing::warn!(%error, "the next number is not kept");
        }
    }

    /// Frees space; `None` if somebody else is at it. What writers may still refer to goes with a
    /// later call.
    pub fn prune(&self) -> Result<Option<Pruned>> {
        if layout::listed(&self.packs())?.is_empty() {
            return Ok(Some(Pruned::default()));
        }
        let Some(_pruner) = epoch::pruner(self)? else { return Ok(None) };
        let mut pruned = Pruned::default();
        let mut condemned = Condemned::read(self)?;
        if !condemned.names.is_empty() {
            let Some(left) = self.sweep(&condemned, &mut pruned)? else { return Ok(Some(pruned)) };
            condemned = left;
        }
        let names = self.doomed()?;
        let nothing = names.is_empty();
        if nothing && self.uncommitted()?.is_empty() {
            return Ok(Some(pruned));
        }
        if let Some(_nobody) = epoch::alone(self)? {
            // Nobody writes, and nobody begins to: what is needed now will be.
            self.remove_unneeded(&names, &mut pruned)?;
            self.uncommitted()?.iter().try_for_each(|path| self.medium().remove(path))?;
            return Ok(Some(pruned));
        }
        if nothing {
            return Ok(Some(pruned));
        }
        condemned = Condemned { epoch: condemned.epoch + 1, names };
        condemned.write(self)?;
        self.sweep(&condemned, &mut pruned)?;
        Ok(Some(pruned))
    }

    /// Removes what is condemned, if no writer can refer to it any more; the list that is left.
    fn sweep(&self, condemned: &Condemned, pruned: &mut Pruned) -> Result<Option<Condemned>> {
        let Some(_before) = epoch::alone_before(self, condemned.epoch)? else { return Ok(None) };
        self.remove_unneeded(&condemned.names, pruned)?;
        let left = Condemned { epoch: condemned.epoch, names: Vec::new() };
        left.write(self)?;
        Ok(Some(left))
    }

    /// What may go, as far as can be told while others write: packs that are dead, or written anew,
    /// and drafts. Sorted.
    fn doomed(&self) -> Result<Vec<String>> {
        let index = Index::load(self, &|_| true)?;
        let live = self.live(&index)?;
        let mut sizes = vec![(0u64, 0u64); index.packs.len()];
        for (name, location) in &index.chunks {
            if let Some((alive, _)) = sizes.get_mut(location.pack as usize) {
                let whole = HEADER as u64 + u64::from(location.stored);
                *alive += if live.contains(name) { whole } else { 0 };
            }
        }
        for (path, (_, all)) in index.packs.iter().zip(&mut sizes) {
            *all = std::fs::metadata(path).map_or(0, |meta| meta.len());
        }
        let fates = fates(&sizes);
        let mut names = self.rubbish()?;
        names.extend(self.of_fate(&index, &fates, Fate::Goes));
        match self.write_anew(&index, &fates, &live) {
            Ok(()) => names.extend(self.of_fate(&index, &fates, Fate::IsWrittenAnew)),
            // The dead make room first.
            Err(error) if error.is_space() => tracing::warn!(%error, "cannot write packs anew"),
            Err(error) if error.is_damage() => tracing::warn!(%error, "cannot write packs anew"),
            Err(error) => return Err(error),
        }
        names.sort();
        Ok(names)
    }

    fn of_fate<'a>(
        &self,
        index: &'a Index,
        fates: &'a [Fate],
        wanted: Fate,
    ) -> impl Iterator<Item = String> + 'a {
        let packs = index.packs.iter().zip(fates).filter(move |(_, fate)| **fate == wanted);
        packs.filter_map(|(path, _)| pack::name_of(path))
    }

    /// Removes those that hold nothing that is needed and not elsewhere.
    fn remove_unneeded(&self, names: &[String], pruned: &mut Pruned) -> Result<()> {
        let kept = Index::load(self, &|name| !names.iter().any(|one| one == name))?;
        let going = Index::load(self, &|name| names.iter().any(|one| one == name))?;
        let mut needed = Names::default();
        if !going.packs.is_empty() {
            let both = Index::load(self, &|_| true)?;
            needed = self.live(&both)?;
        }
        needed.retain(|name| !kept.chunks.contains_key(name));
        let spared = going.chunks.iter().filter(|(name, _)| needed.contains(name));
        let spared: Vec<u32> = spared.map(|(_, location)| location.pack).collect();
        let spared = |path: &Path| {
            let number = going.packs.iter().position(|pack| pack == path);
            number.is_some_and(|number| spared.iter().any(|one| *one as usize == number))
        };
        // What lay beside no pack may lie beside one by now.
        let names = names
            .iter()
            .filter(|name| pack::is_pack(name) || pack::is_draft(name) || self.is_orphan(name));
        for path in names.map(|name| self.packs().join(name)).filter(|path| !spared(path)) {
            let meta = std::fs::metadata(&path);
            pruned.bytes += meta.map_or(0, |meta| meta.len());
            pruned.packs += u64::from(path.extension().is_some_and(|end| end == "pack"));
            self.remove_pack(&path)?;
        }
        self.medium().sync_dir(&self.packs())
    }

    /// The pack goes first: what lies beside means nothing without it.
    fn remove_pack(&self, path: &Path) -> Result<()> {
        self.medium().remove(path)?;
        for beside in [pack::index_path(path), pack::distrust_path(path)] {
            if beside != path && beside.exists() {
                self.medium().remove(&beside)?;
            }
        }
        Ok(())
    }

    /// Names of all chunks that some snapshot needs. What a damaged manifest or list needed is
    /// unknown, so damage ends this, and nothing is freed.
    fn live(&self, index: &Index) -> Result<Names> {
        let mut live = Names::default();
        for workload in self.names()? {
            self.drop_gone(&workload)?;
            let mut numbers = self.numbers(&workload)?;
            numbers.extend(self.gone_numbers(&workload)?);
            for seq in numbers {
                let Some(manifest) = Manifest::find(self, &workload, seq)? else { continue };
                self.needs(&manifest, index, &mut live)?;
            }
        }
        Ok(live)
    }

    /// All chunks that a snapshot needs, leaves included.
    fn needs(&self, manifest: &Manifest, index: &Index, all: &mut Names) -> Result<()> {
        let path = self.manifest(&manifest.workload, manifest.seq);
        let damaged = |why| Error::damaged(&path, 0, why);
        for name in manifest.streams.iter().flat_map(|stream| &stream.leaves) {
            let name = name.as_slice().try_into().map_err(|_| damaged("a name is not 32 bytes"))?;
            let name = crate::chunk::Name(name);
            if !all.insert(name) {
                continue; // Another snapshot's too, and what it lists is known.
            }
            let bytes = match index.read(&name) {
                // A writer that has committed meanwhile, or a pack that was moved.
                Err(Error::Missing { .. }) => Index::load(self, &|_| true)?.read(&name)?,
                read => read?,
            };
            let entries = leaf::decode(&bytes).ok_or_else(|| damaged("a leaf is not whole"))?;
            all.extend(entries.iter().map(|entry| entry.name));
        }
        Ok(())
    }

    /// Manifests that a writer did not commit, or not yet.
    fn uncommitted(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for folder in self.names()?.iter().map(|workload| self.folder(workload)) {
            let draft = |name: &&String| pack::is_draft(name) && *name != "next.tmp";
            found.extend(
                layout::listed(&folder)?.iter().filter(draft).map(|name| folder.join(name)),
            );
        }
        Ok(found)
    }

    /// Removes manifests that were forgotten while somebody read them, if nobody does any more.
    fn drop_gone(&self, workload: &str) -> Result<()> {
        for seq in self.gone_numbers(workload)? {
            let path = self.gone(workload, seq);
            if let Some(_unread) = layout::try_lock(&path)? {
                self.medium().remove(&path)?;
            }
        }
        Ok(())
    }

    /// Copies what is live in those packs to a new one, and makes it durable.
    fn write_anew(&self, index: &Index, fates: &[Fate], live: &Names) -> Result<()> {
        let anew = |pack: u32| fates.get(pack as usize) == Some(&Fate::IsWrittenAnew);
        let mut chunks: Vec<_> = index.chunks.iter().filter(|(_, one)| anew(one.pack)).collect();
        if chunks.is_empty() {
            return Ok(());
        }
        chunks.retain(|(name, _)| live.contains(name));
        chunks.sort_unstable_by_key(|(_, location)| (location.pack, location.at));
        let (mut pack, mut room) = (PackWriter::create(self)?, Vec::new());
        for (name, _) in chunks {
            let location = Location { at: HEADER as u64, ..index.stored(name, &mut room)? };
            debug_assert_eq!(room.len(), HEADER + location.stored as usize);
            let extent = pack.extend([(*name, location)], room.len() as u64, false);
            self.medium().write_at(&extent.file, &extent.path, &[&room], extent.at)?;
        }
        pack.finish()?;
        self.medium().sync_dir(&self.packs())
    }

    /// What writers left half-made, and what lies beside no pack. Those of living writers are among
    /// it: nothing of it goes while they live.
    fn rubbish(&self) -> Result<Vec<String>> {
        let mut names = layout::listed(&self.packs())?;
        names.retain(|name| pack::is_draft(name) || self.is_orphan(name));
        Ok(names)
    }

    /// Whether it lies beside a pack that is not there.
    fn is_orphan(&self, name: &str) -> bool {
        let stem = name.strip_suffix(".index").or_else(|| name.strip_suffix(".damaged"));
        stem.is_some_and(|stem| !self.packs().join(format!("{stem}.pack")).exists())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_goes_when_it_is_mostly_dead() {
        let one = |live, all| fates(&[(live, all)]).pop().unwrap();
        assert_eq!(one(0, 10), Fate::Goes);
        assert_eq!(one(4, 10), Fate::IsWrittenAnew);
        assert_eq!(one(5, 10), Fate::Stays);
        assert_eq!(one(10, 10), Fate::Stays);
    }

    #[test]
    fn small_packs_are_joined_when_they_are_many_and_work_is_bounded() {
        assert_eq!(fates(&[(10, 10); MANY - 1]), [Fate::Stays; MANY - 1]);
        assert_eq!(fates(&[(10, 10); MANY]), [Fate::IsWrittenAnew; MANY]);
        let large = (ANEW / 2 + 1, ANEW * 2);
        assert_eq!(fates(&[large, large]), [Fate::IsWrittenAnew, Fate::Stays]);
    }
}
