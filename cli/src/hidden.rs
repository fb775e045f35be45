//! The entries that are no commands: what snapd starts of itself.
//!
//! They are taken before any argument is parsed, for they are on the way of every start and restore.
use std::ffi::CString;
use std::process::ExitCode;

use nix::sys::prctl::set_name;
use supervisor::{launch, shim, worker};

use crate::diagnosis;
use crate::exit::{self, Failure};

/// Runs the entry that this process was started for; `None` if it was started by a person.
pub(crate) fn enter() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    let entry = args.next()?;
    // They are started as /proc/self/exe, and would be listed as `exe`.
    let part = entry.to_str()?.strip_prefix("__")?;
    let _ = CString::new(format!("snapd-{part}")).map(|name| set_name(&name));
    diagnosis::begin_unheard();
    let outcome = match part {
        "shim" => shim::main().map(|()| 0),
        "worker" => worker::main().map(|()| 0),
        "keeper" => {
            let rest: Vec<_> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
            launch::keeper_main(&rest)
        }
        _ => return None,
    };
    let told = |error| exit::tell(&Failure::Supervisor(error), None);
    Some(outcome.map_or_else(told, exit::code))
}
