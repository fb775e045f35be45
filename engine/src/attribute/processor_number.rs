//! Whether a thread may ask what processor it runs on: `ARCH_SET_CPUID` makes CPUID fault.
use nix::libc::SYS_arch_prctl;

use super::{Attribute, Fact, Owner, Scope, Seen, Told, if_known, only};
use crate::error::Result;
use crate::plan::Stage;
use crate::remote::{Batch, Reply};

pub(super) struct ProcessorNumber;

/// `arch/x86/include/uapi/asm/prctl.h`, since 4.12.
const ARCH_GET_CPUID: i64 = 0x1011;
const ARCH_SET_CPUID: i64 = 0x1012;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    #[prost(bool, tag = "1")]
    faults: bool,
}

impl Attribute for ProcessorNumber {
    const NAME: &'static str = "processor_number";
    const SCOPE: Scope = Scope::Thread;
    const TOLD: Told = Told::AsLeader(&[Fact::InfoFlags]);
    const STAGE: Stage = Stage::Threads;
    type State = State;

    fn ask(_: Owner, batch: &mut Batch) -> Result<()> {
        batch.call("arch_prctl", SYS_arch_prctl, [ARCH_GET_CPUID.into(), 0.into()]);
        Ok(())
    }

    fn answer(_: &mut Seen<'_, '_>, replies: &[Reply]) -> Result<State> {
        Ok(State { faults: if_known(only(replies)?)? == Some(0) })
    }

    fn restore(state: &State, batch: &mut Batch) {
        if state.faults {
            batch.call("arch_prctl", SYS_arch_prctl, [ARCH_SET_CPUID.into(), 0.into()]);
        }
    }
}
