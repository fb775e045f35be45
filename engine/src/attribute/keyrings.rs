//! Keyrings (keyrings(7)): where keys go that are asked for; a keyring of a process's or thread's own is refused,
//! for most keys can be read by nobody.
//!
//! The session's keyring is that of whoever restores, as for a program that is started anew.
use nix::errno::Errno;
use nix::libc::SYS_keyctl;

use super::{Attribute, Fact, Owner, Scope, Seen, Told};
use crate::error::{Cause, Error, Result};
use crate::plan::Stage;
use crate::remote::{Batch, Reply};

pub(super) struct Keyrings;

/// `include/uapi/linux/keyctl.h`.
const GET_KEYRING_ID: i64 = 0;
const SET_REQKEY_KEYRING: i64 = 14;
const THREAD_KEYRING: i64 = -1;
const PROCESS_KEYRING: i64 = -2;
const NO_CHANGE: i64 = -1;

const OWN: Cause = Cause {
    code: "keyrings:own",
    reason: "it has keys of its own, which cannot be read",
    remedy: "let it keep them in the keyring of its session or user",
};

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    /// `KEY_REQKEY_DEFL_*`.
    #[prost(int64, tag = "1")]
    requested: i64,
}

impl Attribute for Keyrings {
    const NAME: &'static str = "keyrings";
    const SCOPE: Scope = Scope::Thread;
    const TOLD: Told = Told::AsLeader(&[Fact::Credentials]);
    const STAGE: Stage = Stage::Threads;
    const CAUSES: &'static [Cause] = &[OWN];
    type State = State;

    fn ask(_: Owner, batch: &mut Batch) -> Result<()> {
        for which in [THREAD_KEYRING, PROCESS_KEYRING] {
            let args = [GET_KEYRING_ID.into(), which.into(), 0.into()];
            batch.call("keyctl", SYS_keyctl, args);
        }
        batch.call("keyctl", SYS_keyctl, [SET_REQKEY_KEYRING.into(), NO_CHANGE.into()]);
        Ok(())
    }

    fn answer(seen: &mut Seen<'_, '_>, replies: &[Reply]) -> Result<State> {
        let [thread, process, requested] = replies else {
            return Err(Error::Record("keyrings".into(), None));
        };
        for (keyring, what) in [(thread, "the thread keyring"), (process, "the process keyring")] {
            match keyring.value() {
                Err(Error::Kernel(_, Errno::ENOKEY | Errno::ENOSYS)) => {}
                // There; or revoked or expired, or not even its owner's to see.
                _ => seen.obstacle(what, &OWN),
            }
        }
        // Without keyrings there is nothing to ask for.
        Ok(State { requested: requested.value().unwrap_or_default() })
    }

    fn restore(state: &State, batch: &mut Batch) {
        if state.requested != 0 {
            let args = [SET_REQKEY_KEYRING.into(), state.requested.into()];
            batch.call("keyctl", SYS_keyctl, args);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Pid, Tid};
    use crate::procfs::Fields;

    fn obstacles(thread: i64, process: i64) -> Vec<String> {
        let reply = |result| Reply { call: "keyctl", result, out: Vec::new() };
        let (mut status, mut obstacles) = (Fields::parse(""), Vec::new());
        let mut seen = Seen::new(Owner::Thread(Pid(7), Tid(8)), &mut status, &mut obstacles);
        let replies = [reply(thread), reply(process), reply(3)];
        assert_eq!(Keyrings::answer(&mut seen, &replies).unwrap(), State { requested: 3 });
        obstacles.into_iter().map(|one| one.object).collect()
    }

    #[test]
    fn only_keyrings_of_its_own_are_in_the_way() {
        let none = -i64::from(nix::libc::ENOKEY);
        assert!(obstacles(none, none).is_empty());
        assert_eq!(obstacles(4711, none), ["the thread keyring of thread 8"]);
        let revoked = -i64::from(nix::libc::EKEYREVOKED);
        assert_eq!(obstacles(none, revoked), ["the process keyring of thread 8"]);
    }
}
