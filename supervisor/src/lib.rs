//! The processes that surround a workload.
//!
//! A [`keeper`] decides (by the pure [`machine`]) and may die at any time; a [`shim`] holds what the
//! workload must not lose: its namespaces, its standard streams, its lock; a [`worker`] runs the
//! engine inside those namespaces. They speak by [`wire`]. [`bridge`] puts the engine's images into
//! the store; [`client`] is what commands use, so that they only render.
#![forbid(unsafe_code)]

pub mod book;
pub mod bridge;
pub mod client;
pub mod define;
pub mod definition;
pub mod error;
pub mod home;
pub mod keeper;
pub mod launch;
pub mod log;
pub mod machine;
pub mod options;
pub mod query;
pub mod shim;
pub mod spool;
pub mod wire;
pub mod worker;

pub use error::{Error, Result};
