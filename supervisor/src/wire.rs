//! What keeper, shim and worker say to each other: protobuf messages, each behind its length.
//!
//! A shim outlives the upgrade of everything around it, hence [`VERSION`], which both sides give
//! first. Descriptors travel beside the first byte of the message that speaks of them.
mod channel;
mod control;
mod frame;
mod shim;
mod worker;

pub use channel::Channel;
pub use control::*;
pub use frame::{FrameError, Frames, MAX_FRAME, encode};
pub use shim::*;
pub use worker::*;

/// Of the protocol between keeper and shim. A keeper speaks to shims of this version only.
pub const VERSION: u32 = 2;
