//! Symbolic links and socket files, held by `O_PATH`: names that cannot be opened in any other way.
use nix::errno::Errno;
use nix::libc::{S_IFLNK, S_IFMT, S_IFSOCK};
use nix::sys::stat::fstat;

use super::named::{self, Causes, Named};
use super::{Build, Check, Claim, Collect, Ends, Evidence, Identity, Missing, Object, View};
use crate::error::{Cause, Result, kernel};
use crate::inventory::End;

pub(super) struct Place;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    #[prost(message, required, tag = "1")]
    named: Named,
    /// `S_IFLNK` or `S_IFSOCK`.
    #[prost(uint32, tag = "2")]
    file_type: u32,
}

const NAMES: Causes = named::causes!("place");
const GONE: Cause = Cause {
    code: "place:gone",
    reason: "it is a symbolic link or socket file that was removed",
    remedy: "have the program close it",
};

impl Object for Place {
    const NAME: &'static str = "place";
    const CAUSES: &'static [Cause] = &[NAMES.hidden, NAMES.renamed, NAMES.missing, GONE];
    /// Sockets bind their files anew.
    const LATE: u8 = 2;
    type State = State;

    fn claims(seen: &Evidence) -> Option<Claim> {
        let claim = Claim { identity: Identity::Inode(seen.inode), end: named::end(seen) };
        let ours = seen.is(S_IFLNK) || seen.is(S_IFSOCK);
        (ours && seen.has_path() && seen.is_place()).then_some(claim)
    }

    fn collect(with: &mut Collect<'_>) -> Result<State> {
        let named = Named::collect(with, &NAMES)?;
        if named.is_gone() {
            with.obstacle(&GONE);
        }
        let Some((_, any)) = with.files.first() else { return Ok(State::default()) };
        let file_type = fstat(any).map_err(kernel("fstat"))?.st_mode & S_IFMT;
        Ok(State { named, file_type })
    }

    fn check(state: &State, with: &Check) -> Vec<Missing> {
        state.named.check(state.file_type, *with, &NAMES)
    }

    fn build(state: &State, _: &mut Build<'_>) -> Result<Ends> {
        state.named.build(&NAMES, |_| Err(Errno::EPERM), |_| Ok(()))
    }

    fn view(state: &State, end: End) -> View {
        state.named.view(end)
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;
    use super::*;
    use nix::fcntl::{OFlag, open};
    use nix::sys::stat::Mode;

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("link");
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let ours = open(&path, flags, Mode::empty()).unwrap();
        let (state, _) = Bench::default().round_trip::<Place>(&[ours]);
        assert_eq!(state.file_type, S_IFLNK);
    }
}
