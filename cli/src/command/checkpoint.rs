//! `snapd checkpoint`.
use clap::Args;
use supervisor::home::Home;
use supervisor::options;
use supervisor::{client, query};

use crate::context::Context;
use crate::exit::Outcome;
use crate::interrupt;
use crate::json;
use crate::output::{print, print_json};
use crate::progress;
use crate::values;

/// Takes a snapshot of a workload now
///
/// Waits for one in progress, takes another, waits until it is durable, and prints its name. The
/// workload runs on, and never notices.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  snapd checkpoint train
  snapd checkpoint train --tag before-upgrade
  snapd checkpoint train --stop    and end it, once the snapshot is safe")]
pub(crate) struct Checkpoint {
    /// The workload
    #[arg(value_parser = values::name)]
    name: String,
    /// Attaches a tag to it (repeatable)
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Ends the workload once the snapshot is safe
    #[arg(long)]
    stop: bool,
}

impl Checkpoint {
    pub(super) fn execute(self, context: &Context) -> Outcome {
        take(context, &context.home()?, &self.name, self.stop, self.tags)
    }
}

/// Takes it, and says which.
pub(super) fn take(
    context: &Context,
    home: &Home,
    name: &str,
    stop: bool,
    tags: Vec<String>,
) -> Outcome {
    interrupt::heed()?;
    let ear = progress::ear(context, "saving", drop);
    let seq = client::checkpoint(home, name, &options::Checkpoint { tags, stop }, &ear)?;
    drop(ear); // And its bar with it.
    if context.json {
        print_json(&json::Snapshot::of(&query::snapshot(home, name, seq)?))?;
    } else {
        print(&format!("{name}@{seq}\n"))?;
    }
    Ok(0)
}
