//! `snapd completions`.
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::args::Cli;
use crate::exit::Outcome;
use crate::output::print_bytes;

/// Prints a script that completes snapd's commands in a shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  snapd completions bash > /usr/share/bash-completion/completions/snapd
  snapd completions zsh > \"${fpath[1]}/_snapd\"
  snapd completions fish > ~/.config/fish/completions/snapd.fish")]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn execute(self) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "snapd", &mut script);
        print_bytes(&script)?;
        Ok(0)
    }
}
