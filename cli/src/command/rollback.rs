//! `snapd rollback`.
use clap::Args;
use policies::name::Reference;
use supervisor::options::Restore;
use supervisor::{client, query};

use crate::context::Context;
use crate::exit::{Failure, Outcome};

/// Takes a running workload back to a snapshot
///
/// It ends, and comes back as it was then, its files with it. New snapshots go on from there under
/// new numbers; the abandoned ones can still be named.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  snapd rollback train@3
  snapd rollback train@-1     to the one before the newest")]
pub(crate) struct Rollback {
    /// The snapshot: NAME@3, NAME@-1; NAME alone is the newest
    #[arg(value_name = "NAME@N")]
    snapshot: Reference,
}

impl Rollback {
    pub(super) fn execute(self, context: &Context) -> Outcome {
        let home = context.home()?;
        let name = &self.snapshot.name;
        let seq = query::resolve(&home, &self.snapshot)?;
        if !client::is_running(&home, name)? {
            return Err(Failure::refused(
                format!("workload {name:?} is not running"),
                format!("`snapd restore {name}@{seq}` brings it back from there"),
            ));
        }
        let mut how = Restore::new(name, Some(seq));
        how.replace = true;
        super::restore::bring(context, &home, how)
    }
}
