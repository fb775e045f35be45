//! `snapd kill`.
use clap::Args;
use supervisor::client;

use crate::context::Context;
use crate::exit::Outcome;
use crate::values;

/// Ends a workload at once, by force
///
/// Its whole process tree gets SIGKILL, and nothing brings it back. Its snapshots stay.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  snapd kill train")]
pub(crate) struct Kill {
    /// The workload
    #[arg(value_parser = values::name)]
    name: String,
}

impl Kill {
    pub(super) fn execute(self, context: &Context) -> Outcome {
        client::kill(&context.home()?, &self.name)?;
        Ok(0)
    }
}
