//! x86-64.
pub(crate) mod blank;
mod cave;
pub(crate) mod frame;
pub(crate) mod receive;
mod registers;
pub(crate) mod stub;
pub(crate) mod xsave;

pub(crate) use cave::{Context, MAGIC_ANY, cave};
pub(crate) use registers::{Interrupted, RegisterFile, Timeout, may_wait, says_eintr_for_a_stop};
