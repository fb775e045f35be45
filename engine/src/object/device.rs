//! Device files behind which there is no state: null, zero, full, random, urandom.
//!
//! Kernel: `drivers/char/mem.c`, `drivers/char/random.c`. Terminals are another kind; every other
//! device is refused by name, for what lies behind it is not ours to read.
use std::path::Path;

use nix::errno::Errno;
use nix::libc::{S_IFBLK, S_IFCHR, S_IFMT, major, makedev, minor};
use nix::sys::stat::{fstat, stat};

use super::named::{self, Causes, Named};
use super::{Build, Check, Claim, Collect, Ends, Evidence, Identity, Missing, Object, View};
use crate::error::{Cause, Result, kernel};
use crate::inventory::End;

pub(super) struct Device;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    #[prost(message, required, tag = "1")]
    named: Named,
    #[prost(uint32, tag = "2")]
    major: u32,
    #[prost(uint32, tag = "3")]
    minor: u32,
}

const NAMES: Causes = named::causes!("device");
const UNSUPPORTED: Cause = Cause {
    code: "device:unsupported",
    reason: "it is a device whose state cannot be read",
    remedy: "have the program close it",
};
const GONE: Cause = Cause {
    code: "device:gone",
    reason: "its device file was removed",
    remedy: "have the program open it again",
};

/// `Documentation/admin-guide/devices.txt`: memory devices, and those of them that are safe.
const MEMORY: u32 = 1;
const SAFE: &[u32] = &[3, 5, 7, 8, 9];
/// Terminals, consoles and pseudo-terminals, old and new.
const TERMINALS: &[u32] = &[2, 3, 4, 5, 136, 137, 138, 139, 140, 141, 142, 143];

impl Object for Device {
    const NAME: &'static str = "device";
    const CAUSES: &'static [Cause] =
        &[NAMES.hidden, NAMES.renamed, NAMES.missing, UNSUPPORTED, GONE];
    type State = State;

    fn claims(seen: &Evidence) -> Option<Claim> {
        let terminal = seen.is(S_IFCHR) && TERMINALS.contains(&major(seen.device));
        let claim = Claim { identity: Identity::Inode(seen.inode), end: named::end(seen) };
        ((seen.is(S_IFCHR) || seen.is(S_IFBLK)) && seen.has_path() && !terminal).then_some(claim)
    }

    fn collect(with: &mut Collect<'_>) -> Result<State> {
        let named = Named::collect(with, &NAMES)?;
        if named.is_gone() {
            with.obstacle(&GONE);
        }
        let Some((_, any)) = with.files.first() else { return Ok(State::default()) };
        let stat = fstat(any).map_err(kernel("fstat"))?;
        let (major, minor) = (major(stat.st_rdev), minor(stat.st_rdev));
        let safe = stat.st_mode & S_IFMT == S_IFCHR && major == MEMORY && SAFE.contains(&minor);
        if !safe {
            with.obstacle(&UNSUPPORTED);
        }
        Ok(State { named, major, minor })
    }

    fn check(state: &State, with: &Check) -> Vec<Missing> {
        let mut missing = state.named.check(S_IFCHR, *with, &NAMES);
        let wanted = makedev(state.major, state.minor);
        let other = |path: &&Path| stat(*path).is_ok_and(|stat| stat.st_rdev != wanted);
        let others = state.named.living().filter(other).map(|path| path.display().to_string());
        missing.extend(others.map(|object| Missing { object, cause: NAMES.missing }));
        missing
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
    use std::fs::File;

    #[test]
    fn the_harmless_ones_are_opened_again() {
        for name in ["null", "zero", "full", "random", "urandom"] {
            let file = File::open(format!("/dev/{name}")).unwrap();
            let (state, _) = Bench::default().round_trip::<Device>(&[file.into()]);
            assert_eq!(Device::check(&state, &Check::default()), []);
        }
    }

    #[test]
    fn another_device_under_the_name_is_noticed() {
        let file = File::open("/dev/null").unwrap();
        let state = Bench::default().collect::<Device>(&[file.into()]);
        let state = State { minor: 5, ..state };
        assert_eq!(Device::check(&state, &Check::default())[0].cause.code, "device:missing");
    }
}
