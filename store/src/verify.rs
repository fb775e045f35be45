//! Looking whether a snapshot is whole.
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::chunk::Name;
use crate::error::{Error, Result};
use crate::index::ByName;
use crate::reader::Reader;

/// How many threads read.
const THREADS: usize = 2;
/// How many chunks a thread takes at once.
const SOME: usize = 64;

impl Reader {
    /// Reads everything, and compares each chunk with its name.
    pub fn verify(&self) -> Result<()> {
        self.each(&|name, room, bytes| {
            self.chunk(name, room, bytes)?;
            if Name::of(bytes) == *name {
                return Ok(bytes.len());
            }
            let index = self.index();
            let (path, at) = index.place(name).unwrap_or((std::path::Path::new("packs"), 0));
            let error = Error::damaged(path, at, "a chunk is not what its name says");
            Err(self.spoilt(name, &index, error))
        })
    }

    /// Reads everything, and compares checksums: as much as reading it for a restore would find, in
    /// less time. For whoever must not begin what cannot be finished.
    pub fn check(&self) -> Result<()> {
        self.each(&|name, room, bytes| match self.index().stored(name, room) {
            Ok(location) => Ok(location.raw as usize),
            // It may be whole elsewhere.
            Err(_) => self.chunk(name, room, bytes).map(|()| bytes.len()),
        })
    }

    fn each(&self, look: Look<'_>) -> Result<()> {
        let mut all = ByName::default();
        for leaf in self.leaves() {
            let (leaf, entries) = self.leaf(leaf)?;
            all.insert(leaf, 0..=usize::MAX);
            for entry in entries {
                let claimed = entry.claims();
                let both = |seen: RangeInclusive<usize>| meet(&seen, &claimed);
                let claimed = all.remove(&entry.name).map_or(claimed.clone(), both);
                all.insert(entry.name, claimed);
            }
        }
        let index = self.index();
        let mut all: Vec<_> = all.into_iter().collect();
        // In the order in which they lie.
        all.sort_by_cached_key(|(name, _)| index.chunks.get(name).map(|one| (one.pack, one.at)));
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let work = || {
            let (mut room, mut bytes) = (Vec::new(), Vec::new());
            while !stop.load(Ordering::Relaxed) {
                let Some(some) = all.chunks(SOME).nth(next.fetch_add(1, Ordering::Relaxed)) else {
                    break;
                };
                for (name, claimed) in some {
                    bytes.clear();
                    let len = look(name, &mut room, &mut bytes);
                    let fits =
                        |len| claimed.contains(&len).then_some(()).ok_or_else(|| self.too_much());
                    if let Err(error) = len.and_then(fits) {
                        stop.store(true, Ordering::Relaxed);
                        return Err(error);
                    }
                }
            }
            Ok(())
        };
        if all.len() <= SOME {
            return work();
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
            let ended = |_| Error::Misuse { what: "a reading thread ended".into() };
            threads.into_iter().try_for_each(|thread| thread.join().map_err(ended)?)
        })
    }
}

/// Looks at a chunk, and says how long it is; room for its stored form, and for its bytes.
type Look<'a> = &'a (dyn Fn(&Name, &mut Vec<u8>, &mut Vec<u8>) -> Result<usize> + Sync);

/// What fits both.
fn meet(one: &RangeInclusive<usize>, other: &RangeInclusive<usize>) -> RangeInclusive<usize> {
    *one.start().max(other.start())..=*one.end().min(other.end())
}
