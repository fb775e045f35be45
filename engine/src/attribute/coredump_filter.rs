//! `/proc/PID/coredump_filter`: which memory a core dump would hold. Absent on kernels without
//! `CONFIG_ELF_CORE`.
use super::{Attribute, Owner, Scope, Seen};
use crate::error::{Error, Result};
use crate::plan::Stage;
use crate::remote::Reply;

pub(super) struct CoredumpFilter;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    #[prost(uint32, optional, tag = "1")]
    filter: Option<u32>,
}

const FILE: &str = "coredump_filter";

impl Attribute for CoredumpFilter {
    const NAME: &'static str = "coredump_filter";
    const SCOPE: Scope = Scope::Process;
    const STAGE: Stage = Stage::Process;
    type State = State;

    fn answer(seen: &mut Seen<'_, '_>, _: &[Reply]) -> Result<State> {
        let damaged = |_| Error::Record(FILE.into(), None);
        let parse = |text: String| u32::from_str_radix(text.trim(), 16).map_err(damaged);
        let text = seen.owner.read(FILE)?.filter(|text| !text.is_empty());
        Ok(State { filter: text.map(parse).transpose()? })
    }

    fn restore_outside(state: &State, owner: Owner) -> Result<()> {
        state.filter.map_or(Ok(()), |filter| owner.write(FILE, &format!("{filter:#x}")))
    }
}
