//! `set_mempolicy(2)`: from which NUMA nodes a thread takes memory. Policies of single areas
//! (`mbind(2)`) are not read here.
use nix::libc::{SYS_get_mempolicy, SYS_set_mempolicy};

use super::{Attribute, Fact, Owner, Scope, Seen, Told, if_known, only};
use crate::error::{Error, Result};
use crate::plan::Stage;
use crate::remote::{Arg, Batch, Reply};

pub(super) struct MemoryPolicy;

/// Nodes we leave room for: the largest `MAX_NUMNODES` a kernel can be built for.
const NODES: i64 = 1024;
const MODE_BYTES: usize = 4;
const MASK_BYTES: usize = 128;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    /// Mode and its flags; zero is the default policy.
    #[prost(int32, tag = "1")]
    mode: i32,
    /// The nodes.
    #[prost(bytes = "vec", tag = "2")]
    nodes: Vec<u8>,
}

impl Attribute for MemoryPolicy {
    const NAME: &'static str = "memory_policy";
    const SCOPE: Scope = Scope::Thread;
    const TOLD: Told = Told::AsLeader(&[Fact::MemoryPolicy]);
    const STAGE: Stage = Stage::Threads;
    type State = State;

    fn ask(_: Owner, batch: &mut Batch) -> Result<()> {
        let args = [Arg::Out(MODE_BYTES), Arg::Out(MASK_BYTES), NODES.into(), 0.into(), 0.into()];
        batch.call("get_mempolicy", SYS_get_mempolicy, args);
        Ok(())
    }

    fn answer(_: &mut Seen<'_, '_>, replies: &[Reply]) -> Result<State> {
        let reply = only(replies)?;
        if if_known(reply)?.is_none() {
            return Ok(State::default());
        }
        let damaged = || Error::Record("memory_policy".into(), None);
        let (mode, nodes) = reply.out.split_first_chunk::<MODE_BYTES>().ok_or_else(damaged)?;
        let mode = i32::from_ne_bytes(*mode);
        Ok(State { mode, nodes: if mode == 0 { Vec::new() } else { nodes.to_vec() } })
    }

    fn restore(state: &State, batch: &mut Batch) {
        if state.mode != 0 {
            let args = [state.mode.into(), Arg::In(state.nodes.clone()), NODES.into()];
            batch.call("set_mempolicy", SYS_set_mempolicy, args);
        }
    }
}
