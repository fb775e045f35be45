//! The commands, one file each: its arguments, whose comments are its help, and what it does.
mod checkpoint;
mod completions;
mod doctor;
mod dump;
mod events;
mod follow;
mod kill;
mod logs;
mod ls;
mod man;
mod restore;
mod rollback;
mod run;
mod show;
mod snapshots;
mod stop;
mod undump;

use clap::Subcommand;

use crate::context::Context;
use crate::exit::Outcome;

/// Every command. The order is that of `--help`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(run::Run),
    Checkpoint(checkpoint::Checkpoint),
    Restore(restore::Restore),
    Rollback(rollback::Rollback),
    Stop(stop::Stop),
    Kill(kill::Kill),
    Ls(ls::Ls),
    Snapshots(snapshots::Snapshots),
    Show(show::Show),
    Logs(logs::Logs),
    Events(events::Events),
    Doctor(doctor::Doctor),
    Dump(dump::Dump),
    Undump(undump::Undump),
    Completions(completions::Completions),
    Man(man::Man),
}

impl Command {
    /// Carries it out.
    pub(crate) fn execute(self, context: &Context) -> Outcome {
        match self {
            Self::Run(it) => it.execute(context),
            Self::Checkpoint(it) => it.execute(context),
            Self::Restore(it) => it.execute(context),
            Self::Rollback(it) => it.execute(context),
            Self::Stop(it) => it.execute(context),
            Self::Kill(it) => it.execute(context),
            Self::Ls(it) => it.execute(context),
            Self::Snapshots(it) => it.execute(context),
            Self::Show(it) => it.execute(context),
            Self::Logs(it) => it.execute(context),
            Self::Events(it) => it.execute(context),
            Self::Doctor(it) => it.execute(context),
            Self::Dump(it) => it.execute(context),
            Self::Undump(it) => it.execute(context),
            Self::Completions(it) => it.execute(),
            Self::Man(it) => it.execute(),
        }
    }
}
