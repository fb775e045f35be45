//! `snapd show`.
use clap::Args;
use policies::name::Reference;
use supervisor::query;

use crate::context::Context;
use crate::exit::Outcome;
use crate::json;
use crate::output::{print, print_json};

/// Shows what a snapshot holds
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  snapd show train
  snapd show train@3 --what files")]
pub(crate) struct Show {
    /// The workload, or one of its snapshots: NAME, NAME@3, NAME@-1
    #[arg(value_name = "NAME[@N]")]
    snapshot: Reference,
}

impl Show {
    pub(super) fn execute(self, context: &Context) -> Outcome {
        let home = context.home()?;
        let seq = query::resolve(&home, &self.snapshot)?;
        let one = query::snapshot(&home, &self.snapshot.name, seq)?;
        if context.json {
            print_json(&json::Snapshot::of(&one))?;
        } else {
            print(&super::snapshots::table(&[one]))?;
        }
        Ok(0)
    }
}
