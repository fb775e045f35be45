//! `snapd man`.
use std::path::PathBuf;

use clap::{Args, CommandFactory};

use crate::args::Cli;
use crate::exit::{Failure, Outcome};

/// Writes manual pages into a directory: snapd.1, and one for each command
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  snapd man /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// The directory, made if it is not there
    #[arg(value_name = "DIR")]
    pages: PathBuf,
}

impl Man {
    pub(super) fn execute(self) -> Outcome {
        let written = std::fs::create_dir_all(&self.pages)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), &self.pages));
        let failed = |error| {
            let text = format!("cannot write manual pages into {}: {error}", self.pages.display());
            Failure::Refused { text, hint: None, sort: supervisor::error::Sort::Failed }
        };
        written.map_err(failed)?;
        Ok(0)
    }
}
