//! x86-64.
mod cave;
mod registers;

pub(crate) use cave::{Context, MAGIC_ANY, cave};
pub(crate) use registers::RegisterFile;
