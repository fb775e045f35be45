//! Directories: by name; one that was removed while held is made, opened and removed again.
//!
//! Where getdents(2) stands is the open file's position, a cookie of the file system's own.
use nix::libc::S_IFDIR;

use super::file::is_kept;
use super::named::{self, Causes, Named, make_directory};
use super::{Build, Check, Claim, Collect, Ends, Evidence, Identity, Missing, Object, View};
use crate::error::{Cause, Result};
use crate::inventory::End;

pub(super) struct Directory;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    #[prost(message, required, tag = "1")]
    named: Named,
}

const NAMES: Causes = named::causes!("directory");

impl Object for Directory {
    const NAME: &'static str = "directory";
    const CAUSES: &'static [Cause] = &[NAMES.hidden, NAMES.renamed, NAMES.missing];
    type State = State;

    fn claims(seen: &Evidence) -> Option<Claim> {
        let claim = Claim { identity: Identity::Inode(seen.inode), end: named::end(seen) };
        (seen.is(S_IFDIR) && is_kept(seen)).then_some(claim)
    }

    fn collect(with: &mut Collect<'_>) -> Result<State> {
        Ok(State { named: Named::collect(with, &NAMES)? })
    }

    fn check(state: &State, with: &Check) -> Vec<Missing> {
        state.named.check(S_IFDIR, *with, &NAMES)
    }

    fn build(state: &State, _: &mut Build<'_>) -> Result<Ends> {
        state.named.build(&NAMES, make_directory, |_| Ok(()))
    }

    fn view(state: &State, end: End) -> View {
        state.named.view(end)
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;
    use super::*;
    use std::fs::{self, File};

    #[test]
    fn round_trips_of_one_that_lives_and_one_that_was_removed() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("a/b");
        fs::create_dir_all(&gone).unwrap();
        let [lives, gone] = [dir.path(), &gone].map(|path| File::open(path).unwrap().into());
        fs::remove_dir_all(dir.path().join("a")).unwrap();
        let (state, _) = Bench::default().round_trip::<Directory>(&[lives]);
        assert!(!state.named.is_gone());
        let (state, _) = Bench::default().round_trip::<Directory>(&[gone]);
        assert!(state.named.is_gone());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
