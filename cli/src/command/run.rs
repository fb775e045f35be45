//! `snapd run`.
pub(super) mod options;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use clap::Args;
use supervisor::launch;
use supervisor::options::{Done, Ear, Run as Wanted};

use self::options::Options;
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::output::{print, print_json};
use crate::values;

/// Runs a command under supervision
///
/// The command runs in the foreground, with this terminal, as it would without snapd; no daemon is
/// needed. With a schedule it is saved while it runs. After a crash it comes back from its newest
/// snapshot by itself, its files with it.
#[derive(Debug, Args)]
#[command(override_usage = "snapd run [OPTIONS] -- COMMAND [ARG]...")]
#[command(after_help = "Examples:
  snapd run --every 10s -- python3 train.py
  snapd run -d --name web --every 1m --keep-last 20 -- ./server --port 8080
  generate | snapd run --every 5s -- sort > sorted
  snapd run --name job --resume --every 1m -- ./job     goes on where the last run was saved")]
pub(crate) struct Run {
    /// Names the workload; the default is made from the command
    #[arg(long, value_parser = values::name)]
    name: Option<String>,
    /// Returns once it runs, printing its name
    #[arg(short, long)]
    detach: bool,
    /// Starts from the beginning although NAME has snapshots
    #[arg(long, conflicts_with = "resume")]
    fresh: bool,
    /// Goes on from the newest snapshot if there is one, and starts from the beginning if not
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    options: Options,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Run {
    pub(super) fn execute(self, context: &Context) -> Outcome {
        privileged()?;
        let command = self.command.into_iter().map(OsString::into_vec).collect();
        let mut options = Wanted::new(command);
        self.options.fill(&mut options)?;
        options.name = self.name;
        (options.detach, options.json) = (self.detach, context.json);
        (options.fresh, options.resume) = (self.fresh, self.resume);
        let home = context.home()?;
        match launch::run(&home, &options, &Ear::default())? {
            Done::Ended(status) => return Ok(status),
            Done::Detached(up) if context.json => print_json(&super::ls::row(&home, &up.name)?)?,
            Done::Detached(up) => print(&format!("{}\n", up.name))?,
        }
        Ok(0)
    }
}

/// Supervision makes namespaces and restores PIDs: an ordinary user is told before anything is tried.
pub(super) fn privileged() -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::refused(
        "an ordinary user cannot supervise programs: namespaces, /proc/PID/map_files and the choice \
         of PIDs need CAP_SYS_ADMIN, CAP_SYS_PTRACE and CAP_CHECKPOINT_RESTORE",
        "run it as root, for example with sudo; `snapd doctor` lists what this account can do",
    ))
}
