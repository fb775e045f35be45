//! The command `snapd`: arguments in, words and exit codes out.
//!
//! What commands do is the supervisor's; here they are parsed ([`args`]), carried out one file each
//! ([`command`]), shown as tables or JSON ([`render`], [`json`]), and their failures told ([`exit`]).
#![forbid(unsafe_code)]

mod args;
mod command;
mod context;
mod diagnosis;
mod exit;
mod hidden;
mod interrupt;
mod json;
mod output;
mod progress;
mod render;
mod values;

use std::process::ExitCode;

fn main() -> ExitCode {
    hidden::enter().unwrap_or_else(args::enter)
}
