//! prlimit(2): all sixteen, asked and set inside, because from outside the kernel wants the same
//! credentials or `CAP_SYS_RESOURCE`.
//!
//! A hard limit above our own cannot be given back without that capability: the restore says so.
use nix::libc::SYS_prlimit64;

use super::{Attribute, Owner, Scope, Seen};
use crate::error::{Error, Result};
use crate::plan::Stage;
use crate::remote::{Arg, Batch, Reply};

pub(super) struct Limits;

/// `RLIM_NLIMITS` of `include/uapi/asm-generic/resource.h`.
const COUNT: i64 = 16;
/// `struct rlimit64`.
const BYTES: usize = 16;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    /// By number.
    #[prost(message, repeated, tag = "1")]
    limits: Vec<Limit>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Limit {
    #[prost(fixed64, tag = "1")]
    cur: u64,
    #[prost(fixed64, tag = "2")]
    max: u64,
}

impl Attribute for Limits {
    const NAME: &'static str = "limits";
    const SCOPE: Scope = Scope::Process;
    const STAGE: Stage = Stage::Process;
    type State = State;

    fn ask(_: Owner, batch: &mut Batch) -> Result<()> {
        for which in 0..COUNT {
            batch.call(
                "prlimit64",
                SYS_prlimit64,
                [0.into(), which.into(), 0.into(), Arg::Out(BYTES)],
            );
        }
        Ok(())
    }

    fn answer(_: &mut Seen<'_, '_>, replies: &[Reply]) -> Result<State> {
        let limits = replies.iter().map(limit).collect::<Result<_>>()?;
        Ok(State { limits })
    }

    fn restore(state: &State, batch: &mut Batch) {
        for (which, limit) in (0i64..).zip(&state.limits) {
            let bytes = [limit.cur.to_ne_bytes(), limit.max.to_ne_bytes()].concat();
            batch.call(
                "prlimit64",
                SYS_prlimit64,
                [0.into(), which.into(), Arg::In(bytes), 0.into()],
            );
        }
    }
}

/// What is still told of a zombie, in the order of their numbers: `/proc/PID/limits`.
pub(super) fn of_zombie(table: &str) -> Result<State> {
    let limits = table.lines().skip(1).map(row).collect::<Option<Vec<_>>>();
    let all = limits.filter(|limits| i64::try_from(limits.len()) == Ok(COUNT));
    Ok(State { limits: all.ok_or_else(|| Error::Record("limits".into(), None))? })
}

/// Its name is as wide as the widest; `proc_pid_limits()` of `fs/proc/base.c`.
fn row(line: &str) -> Option<Limit> {
    let mut words = line.get(26..)?.split_whitespace().map(|word| match word {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    });
    Some(Limit { cur: words.next()??, max: words.next()?? })
}

fn limit(reply: &Reply) -> Result<Limit> {
    reply.value()?;
    match reply.out.as_chunks().0 {
        [cur, max] => Ok(Limit { cur: u64::from_ne_bytes(*cur), max: u64::from_ne_bytes(*max) }),
        _ => Err(Error::Record("limits".into(), None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_them_in_order() {
        let state = of_zombie(&std::fs::read_to_string("/proc/self/limits").unwrap()).unwrap();
        let files = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
        let (cur, max) = files.unwrap();
        assert_eq!(
            state.limits[usize::try_from(nix::libc::RLIMIT_NOFILE).unwrap()],
            Limit { cur, max }
        );
        assert!(
            of_zombie("Limit\nMax cpu time    1    2\n").is_err(),
            "all of it is told, or nothing"
        );
    }

    #[test]
    fn a_row_may_have_no_limit() {
        let line = "Max stack size            8388608              unlimited            bytes     ";
        assert_eq!(row(line), Some(Limit { cur: 8 << 20, max: u64::MAX }));
        assert_eq!(row("Max stack size            some"), None);
    }
}
