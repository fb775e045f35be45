//! Who may refer to what: how pruning and writing go on side by side.
//!
//! A writer refers to chunks that lie in packs already, and nobody can see which until it commits. So
//! no pack is removed while a writer lives that may have seen it. Pruning *condemns* packs: it writes
//! their names into a file, under the next number (an epoch). Writers that begin later do not see
//! condemned packs; those that began before hold the lock of the epoch they began in. When that can be had
//! alone, the manifests tell again what is needed, for now they tell all, and what is condemned and
//! not needed goes. Two locks are enough, since the next epoch begins only when the last is swept.
//!
//! Readers hold their manifest's lock, and their snapshot's chunks are needed until they let go.
use std::path::PathBuf;

use nix::fcntl::FlockArg;

use crate::error::{Error, Result, io_error};
use crate::layout::{Lock, Store, lock, try_lock};

/// What is condemned, and since which epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Condemned {
    pub(crate) epoch: u64,
    /// Files in `packs/`, sorted.
    pub(crate) names: Vec<String>,
}

impl Condemned {
    fn path(store: &Store) -> PathBuf {
        store.dir().join("condemned")
    }

    /// What the file says; nothing is condemned if there is none.
    pub(crate) fn read(store: &Store) -> Result<Self> {
        let path = Self::path(store);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        Self::parse(&text).ok_or_else(|| Error::damaged(&path, 0, "it is no list of packs"))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let epoch = lines.next()?.parse().ok()?;
        let names: Vec<String> = lines.map(str::to_owned).collect();
        let plain = |name: &String| !name.is_empty() && !name.contains('/');
        (text.ends_with('\n') && names.iter().all(plain)).then_some(Self { epoch, names })
    }

    /// Makes it so, durably.
    pub(crate) fn write(&self, store: &Store) -> Result<()> {
        let lines = std::iter::once(self.epoch.to_string()).chain(self.names.iter().cloned());
        let text: String = lines.map(|line| line + "\n").collect();
        store.medium().write_whole(&Self::path(store), text.as_bytes())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.binary_search_by(|one| one.as_str().cmp(name)).is_ok()
    }
}

fn lock_path(store: &Store, epoch: u64) -> PathBuf {
    store.dir().join(if epoch.is_multiple_of(2) { "lock.0" } else { "lock.1" })
}

/// For a writer: until it is dropped no pack goes that is not condemned already.
pub(crate) fn join(store: &Store) -> Result<(Lock, Condemned)> {
    loop {
        let condemned = Condemned::read(store)?;
        let held = lock(&lock_path(store, condemned.epoch), FlockArg::LockShared)?;
        // Unless another epoch began before we had the lock, no sweep can miss us.
        let now = Condemned::read(store)?;
        if now.epoch == condemned.epoch {
            return Ok((held, now));
        }
    }
}

/// For pruning: `None` while a writer lives that began before `epoch`.
pub(crate) fn alone_before(store: &Store, epoch: u64) -> Result<Option<Lock>> {
    try_lock(&lock_path(store, epoch.wrapping_sub(1)))
}

/// For pruning: `None` while any writer lives. None begins meanwhile.
pub(crate) fn alone(store: &Store) -> Result<Option<(Lock, Lock)>> {
    Ok(try_lock(&lock_path(store, 0))?.zip(try_lock(&lock_path(store, 1))?))
}

/// For pruning: one at a time.
pub(crate) fn pruner(store: &Store) -> Result<Option<Lock>> {
    try_lock(&store.dir().join("lock.prune"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_believed_only_when_whole() {
        let list = Condemned { epoch: 3, names: vec!["a.pack".into(), "b.pack".into()] };
        assert_eq!(Condemned::parse("3\na.pack\nb.pack\n"), Some(list.clone()));
        assert!(list.has("b.pack") && !list.has("c.pack"));
        for text in ["", "3", "x\n", "3\n../x\n", "3\na.pa"] {
            assert_eq!(Condemned::parse(text), None, "{text:?}");
        }
    }
}
