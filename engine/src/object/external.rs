//! What the supervisor holds: the far end of a workload's standard stream is its own.
//!
//! The bytes in between are the supervisor's business too: it drains what was written before the
//! snapshot, and gives again what was not read. So of the object only the key is remembered; at a
//! restore the supervisor's new end takes its place. Terminals are another kind, which knows their
//! settings.
use std::os::fd::OwnedFd;

use super::{Build, Claim, Collect, Ends, Evidence, Identity, Object, View};
use crate::error::{Error, Result, kernel_io};
use crate::inventory::End;

pub(super) struct External;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    #[prost(string, tag = "1")]
    key: String,
}

impl Object for External {
    const NAME: &'static str = "external";
    type State = State;

    fn claims(seen: &Evidence) -> Option<Claim> {
        let ours = seen.external.is_some() && seen.pty.is_none();
        ours.then(|| Claim::whole(Identity::Inode(seen.inode)))
    }

    fn collect(with: &mut Collect<'_>) -> Result<State> {
        for key in ["scm_fds", "ino"] {
            with.info.take_all(key);
        }
        Ok(State { key: with.external.unwrap_or_default().to_owned() })
    }

    fn build(state: &State, with: &mut Build<'_>) -> Result<Ends> {
        let damaged = || Error::Record(format!("external {}", state.key), None);
        let held: &OwnedFd = with.externals.get(&state.key).ok_or_else(damaged)?;
        Ok(Ends::one(held.try_clone().map_err(kernel_io("fcntl"))?))
    }

    fn view(state: &State, _: End) -> View {
        View::of(state.key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Sockets;
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn only_what_is_held_is_claimed() {
        let (read, _write) = std::io::pipe().unwrap();
        let mut seen = Evidence::of(read.as_fd(), &Sockets::default()).unwrap();
        assert!(External::claims(&seen).is_none());
        seen.external = Some("stdio/0".into());
        assert!(External::claims(&seen).is_some());
    }
}
