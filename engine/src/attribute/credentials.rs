//! Credentials: user and group ids, supplementary groups, five capability sets, securebits. The
//! kernel keeps them for each thread (`struct cred`), whatever POSIX says.
//!
//! The order of restoring follows from what takes which capability away:
//! groups and ids first, with `SECBIT_NO_SETUID_FIXUP` so that no capability is lost; then the
//! inheritable set, of which ambient ones must be part; ambient before securebits, which may forbid
//! raising them; securebits while `CAP_SETPCAP` is still there; the final sets at the end.
use nix::libc::{
    self, SYS_capset, SYS_prctl, SYS_setfsgid, SYS_setfsuid, SYS_setgroups, SYS_setresgid,
    SYS_setresuid,
};

use super::{Attribute, Fact, Owner, Scope, Seen, Told, missing, only};
use crate::error::Result;
use crate::plan::Stage;
use crate::procfs::Fields;
use crate::remote::{Arg, Batch, Reply};

pub(super) struct Credentials;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    /// Real, effective, saved, file system.
    #[prost(uint32, repeated, tag = "1")]
    uids: Vec<u32>,
    /// Likewise.
    #[prost(uint32, repeated, tag = "2")]
    gids: Vec<u32>,
    #[prost(uint32, repeated, tag = "3")]
    groups: Vec<u32>,
    #[prost(fixed64, tag = "4")]
    cap_inh: u64,
    #[prost(fixed64, tag = "5")]
    cap_prm: u64,
    #[prost(fixed64, tag = "6")]
    cap_eff: u64,
    #[prost(fixed64, tag = "7")]
    cap_bnd: u64,
    #[prost(fixed64, tag = "8")]
    cap_amb: u64,
    #[prost(int64, tag = "9")]
    securebits: i64,
}

/// `CAP_SETPCAP` of `include/uapi/linux/capability.h`.
const CAP_SETPCAP: u64 = 1 << 8;
/// `_LINUX_CAPABILITY_VERSION_3`: two words for each set.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
/// `SECBIT_NO_SETUID_FIXUP` of `include/uapi/linux/securebits.h`.
const SECBIT_NO_SETUID_FIXUP: i64 = 1 << 2;
/// Sets have 64 bits; the kernel uses the lower ones.
const CAPABILITIES: std::ops::Range<i64> = 0..64;

impl Attribute for Credentials {
    const NAME: &'static str = "credentials";
    const SCOPE: Scope = Scope::Thread;
    const TOLD: Told = Told::AsLeader(&[Fact::Credentials, Fact::RealCredentials]);
    const STAGE: Stage = Stage::Credentials;
    type State = State;

    fn ask(_: Owner, batch: &mut Batch) -> Result<()> {
        batch.call("prctl", SYS_prctl, [libc::PR_GET_SECUREBITS.into()]);
        Ok(())
    }

    fn answer(seen: &mut Seen<'_, '_>, replies: &[Reply]) -> Result<State> {
        Ok(State {
            uids: numbers(seen.status, "Uid")?,
            gids: numbers(seen.status, "Gid")?,
            groups: numbers(seen.status, "Groups")?,
            cap_inh: capabilities(seen.status, "CapInh")?,
            cap_prm: capabilities(seen.status, "CapPrm")?,
            cap_eff: capabilities(seen.status, "CapEff")?,
            cap_bnd: capabilities(seen.status, "CapBnd")?,
            cap_amb: capabilities(seen.status, "CapAmb")?,
            securebits: only(replies)?.value()?,
        })
    }

    fn restore(state: &State, batch: &mut Batch) {
        secure(SECBIT_NO_SETUID_FIXUP, batch);
        groups(&state.groups, batch);
        ids(&state.gids, ("setresgid", SYS_setresgid), ("setfsgid", SYS_setfsgid), batch);
        ids(&state.uids, ("setresuid", SYS_setresuid), ("setfsuid", SYS_setfsuid), batch);
        for capability in missing_from(state.cap_bnd) {
            bounding_drop(capability, batch);
        }
        let setpcap = state.cap_prm | CAP_SETPCAP;
        capset(setpcap, state.cap_eff | CAP_SETPCAP, state.cap_inh, batch);
        ambient(state.cap_amb, batch);
        secure(state.securebits, batch);
        capset(state.cap_prm, state.cap_eff, state.cap_inh, batch);
    }
}

fn numbers(status: &mut Fields<'_>, key: &'static str) -> Result<Vec<u32>> {
    let line = status.take(key).ok_or_else(missing(key))?;
    let numbers: Option<_> = line.split_ascii_whitespace().map(|word| word.parse().ok()).collect();
    numbers.ok_or_else(missing(key))
}

fn capabilities(status: &mut Fields<'_>, key: &'static str) -> Result<u64> {
    status.take_number(key, 16).ok_or_else(missing(key))
}

/// Capabilities that the kernel knows and `set` lacks. Those it does not know, nobody has.
fn missing_from(set: u64) -> impl Iterator<Item = i64> {
    CAPABILITIES.take_while(|bit| *bit <= last_capability()).filter(move |bit| set >> bit & 1 == 0)
}

/// `/proc/sys/kernel/cap_last_cap`.
fn last_capability() -> i64 {
    static LAST: std::sync::OnceLock<i64> = std::sync::OnceLock::new();
    *LAST.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap_or_default();
        text.trim().parse().unwrap_or(40)
    })
}

fn secure(bits: i64, batch: &mut Batch) {
    batch.call("prctl", SYS_prctl, [libc::PR_SET_SECUREBITS.into(), bits.into()]);
}

fn groups(groups: &[u32], batch: &mut Batch) {
    let count = i64::try_from(groups.len()).unwrap_or(i64::MAX);
    let list: Vec<u8> = groups.iter().flat_map(|gid| gid.to_ne_bytes()).collect();
    batch.call("setgroups", SYS_setgroups, [count.into(), Arg::In(list)]);
}

/// Real, effective and saved in one call; the one for files follows the effective one until set.
fn ids(
    ids: &[u32],
    (set, set_number): (&'static str, i64),
    (set_fs, set_fs_number): (&'static str, i64),
    batch: &mut Batch,
) {
    if let [real, effective, saved, fs] = ids {
        batch.call(set, set_number, [(*real).into(), (*effective).into(), (*saved).into()]);
        if fs != effective {
            batch.call(set_fs, set_fs_number, [(*fs).into()]);
        }
    }
}

fn bounding_drop(capability: i64, batch: &mut Batch) {
    batch.call("prctl", SYS_prctl, [libc::PR_CAPBSET_DROP.into(), capability.into()]);
}

fn capset(permitted: u64, effective: u64, inheritable: u64, batch: &mut Batch) {
    let header = [CAPABILITY_VERSION_3.to_ne_bytes(), [0; 4]].concat();
    let low = |set: u64| set.to_le_bytes().first_chunk::<4>().copied().unwrap_or_default();
    let halves = |shift: u32| {
        [effective >> shift, permitted >> shift, inheritable >> shift].map(low).concat()
    };
    let data = [halves(0), halves(32)].concat();
    batch.call("capset", SYS_capset, [Arg::In(header), Arg::In(data)]);
}

fn ambient(set: u64, batch: &mut Batch) {
    let raise = i64::from(libc::PR_CAP_AMBIENT_RAISE);
    for capability in CAPABILITIES.filter(|bit| set >> bit & 1 == 1) {
        let args = [libc::PR_CAP_AMBIENT.into(), raise.into(), capability.into()];
        batch.call("prctl", SYS_prctl, args);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_dropped_last() {
        let state = State { uids: vec![1, 2, 3, 2], gids: vec![4, 5, 6, 9], ..State::default() };
        let mut batch = Batch::default();
        Credentials::restore(&state, &mut batch);
        let names: Vec<_> = batch.0.iter().map(|call| call.name).collect();
        let first = ["prctl", "setgroups", "setresgid", "setfsgid", "setresuid", "prctl"];
        assert_eq!(names[..6], first, "file ids only where they differ");
        assert_eq!(names[names.len() - 3..], ["capset", "prctl", "capset"]);
    }

    #[test]
    fn sets_are_split_low_word_first() {
        let mut batch = Batch::default();
        capset(1 << 40, 1, 0, &mut batch);
        let Some(Arg::In(data)) = batch.0[0].args.get(1) else { panic!("no data") };
        assert_eq!(data[..4], [1, 0, 0, 0], "effective, low");
        assert_eq!(data[16..20], [0, 1, 0, 0], "permitted, high");
    }
}
