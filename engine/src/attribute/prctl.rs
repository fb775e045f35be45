//! The prctl(2) values that one call tells and another sets: each is a few lines.
use nix::libc::{self, SYS_prctl};
use std::marker::PhantomData;

use super::{Attribute, Fact, Owner, Scope, Seen, Told, if_known, only};
use crate::error::Result;
use crate::plan::Stage;
use crate::remote::{Arg, Batch, Reply};

/// One of them, as an attribute.
pub(super) struct Value<P>(PhantomData<P>);

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    #[prost(int64, tag = "1")]
    value: i64,
}

/// How a call tells a value.
pub(super) enum Tells {
    /// By its result.
    Result,
    /// By writing an int.
    Int,
}

/// One value.
pub(super) trait Prctl {
    const NAME: &'static str;
    const SCOPE: Scope;
    const STAGE: Stage;
    /// The call that tells it.
    const GET: i32;
    const TELLS: Tells = Tells::Result;
    /// What everybody has who never asked for anything else, also where the kernel does not know it.
    const DEFAULT: i64 = 0;
    /// Of a thread: what in the kernel it is told by.
    const FACTS: &'static [Fact] = &[];
    /// Whether it is set only where it is not the default: for what can't be taken back.
    const ONE_WAY: bool = false;
    /// The arguments that set it.
    fn set(value: i64) -> Vec<i64>;
}

impl<P: Prctl> Attribute for Value<P> {
    const NAME: &'static str = P::NAME;
    const SCOPE: Scope = P::SCOPE;
    const TOLD: Told = Told::AsLeader(P::FACTS);
    const STAGE: Stage = P::STAGE;
    type State = State;

    fn ask(_: Owner, batch: &mut Batch) -> Result<()> {
        match P::TELLS {
            Tells::Result => batch.call("prctl", SYS_prctl, [P::GET.into()]),
            Tells::Int => {
                batch.call("prctl", SYS_prctl, [P::GET.into(), Arg::Out(size_of::<i32>())]);
            }
        }
        Ok(())
    }

    fn answer(_: &mut Seen<'_, '_>, replies: &[Reply]) -> Result<State> {
        let reply = only(replies)?;
        let Some(result) = if_known(reply)? else { return Ok(State { value: P::DEFAULT }) };
        let value = match P::TELLS {
            Tells::Result => result,
            Tells::Int => reply.ints().map(|[value]| value.into())?,
        };
        Ok(State { value })
    }

    fn restore(state: &State, batch: &mut Batch) {
        if P::ONE_WAY && state.value == P::DEFAULT {
            return;
        }
        let mut args = P::set(state.value).into_iter().map(Arg::Value);
        let mut next = || args.next().unwrap_or(Arg::Value(0));
        batch.call("prctl", SYS_prctl, [next(), next(), next()]);
    }
}

macro_rules! values { ($(
    $(#[$doc:meta])*
    $type:ident($name:literal, $scope:ident, $stage:ident) = $get:expr, |$value:ident| $set:expr
    $(, $key:ident = $given:expr)*;
)+) => { $(
    $(#[$doc])*
    pub(super) struct $type;

    impl Prctl for $type {
        const NAME: &'static str = $name;
        const SCOPE: Scope = Scope::$scope;
        const STAGE: Stage = Stage::$stage;
        const GET: i32 = $get;
        $(const $key: values!(@type $key) = $given;)*

        fn set($value: i64) -> Vec<i64> {
            $set.to_vec()
        }
    }
)+ };
    (@type TELLS) => { Tells };
    (@type DEFAULT) => { i64 };
    (@type ONE_WAY) => { bool };
    (@type FACTS) => { &'static [Fact] };
}

/// `PR_GET_MDWE` and `PR_SET_MDWE` of `include/uapi/linux/prctl.h`, since 6.3.
const PR_SET_MDWE: i64 = 65;
const PR_GET_MDWE: i32 = 66;
/// `PR_SET_MEMORY_MERGE` and `PR_GET_MEMORY_MERGE`, since 6.4.
const PR_SET_MEMORY_MERGE: i64 = 67;
const PR_GET_MEMORY_MERGE: i32 = 68;

values! {
    /// Orphaned descendants come to it rather than to init.
    ChildSubreaper("child_subreaper", Process, Process) =
        libc::PR_GET_CHILD_SUBREAPER, |value| [libc::PR_SET_CHILD_SUBREAPER.into(), value],
        TELLS = Tells::Int;
    /// No transparent huge pages in this address space; since 6.18, but where they are advised, by a flag that
    /// is told beside and set apart.
    ThpDisable("thp_disable", Process, Process) =
        libc::PR_GET_THP_DISABLE, |value| [libc::PR_SET_THP_DISABLE.into(), value & 1, value & !1];
    /// All its memory may be merged with equal pages of others (`ksm`).
    MemoryMerge("memory_merge", Process, Process) =
        PR_GET_MEMORY_MERGE, |value| [PR_SET_MEMORY_MERGE, value], ONE_WAY = true;
    /// How late timers may be, in nanoseconds.
    TimerSlack("timer_slack", Thread, Threads) =
        libc::PR_GET_TIMERSLACK, |value| [libc::PR_SET_TIMERSLACK.into(), value],
        DEFAULT = 50_000, FACTS = &[Fact::TimerSlack];
    /// Whether it may read the time stamp counter.
    TimeStampCounter("time_stamp_counter", Thread, Threads) =
        libc::PR_GET_TSC, |value| [libc::PR_SET_TSC.into(), value],
        TELLS = Tells::Int, DEFAULT = 1, FACTS = &[Fact::InfoFlags];
    /// How it is killed when its memory is found broken.
    MachineCheck("machine_check", Thread, Threads) =
        libc::PR_MCE_KILL_GET, |value|
        [libc::PR_MCE_KILL.into(), libc::PR_MCE_KILL_SET.into(), value],
        DEFAULT = 2, ONE_WAY = true, FACTS = &[Fact::Flags];
    /// Whether it may dump core and be traced by its own user. A change of credentials resets it.
    Dumpable("dumpable", Process, Final) =
        libc::PR_GET_DUMPABLE, |value| [libc::PR_SET_DUMPABLE.into(), value & 1],
        DEFAULT = 1;
    /// What it gets when its parent dies. A change of credentials clears it (`commit_creds()`). Set
    /// even if it is none: a blank was born with ours.
    ParentDeathSignal("parent_death_signal", Thread, Final) =
        libc::PR_GET_PDEATHSIG, |value| [libc::PR_SET_PDEATHSIG.into(), value],
        TELLS = Tells::Int, FACTS = &[Fact::ParentDeathSignal];
    /// Nothing it executes gains privileges.
    NoNewPrivileges("no_new_privs", Thread, Final) =
        libc::PR_GET_NO_NEW_PRIVS, |value| [libc::PR_SET_NO_NEW_PRIVS.into(), value],
        ONE_WAY = true, FACTS = &[Fact::AtomicFlags];
    /// Its memory is never writable and executable. Forbids what mapping does, so it comes last.
    DenyWriteExecute("deny_write_execute", Process, Final) =
        PR_GET_MDWE, |value| [PR_SET_MDWE, value], ONE_WAY = true;
}
