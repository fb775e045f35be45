//! The command line as a whole: global options, and which command.
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, Parser};

use crate::command::Command;
use crate::context::Context;
use crate::exit::{self, Failure};

/// Takes snapshots of running programs, and brings them back.
///
/// A workload is a process tree that snapd runs under a name. Its snapshots are numbered from 1;
/// NAME@3 is one of them, NAME@-1 the one before the newest, and NAME alone means the newest that
/// can be restored.
#[derive(Debug, Parser)]
#[command(
    name = "snapd",
    version,
    propagate_version = false,
    arg_required_else_help = true,
    disable_help_subcommand = false,
    max_term_width = 100,
    after_help = AFTER
)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const AFTER: &str = "\
Examples:
  snapd run --every 10s -- python3 train.py   run a program, with a snapshot every 10 seconds
  snapd ls                                    what runs
  snapd rollback train@3                      go back to its third snapshot
  snapd dump --pid 4242 --images /tmp/image   save any program, without a supervisor
  snapd doctor                                what this machine can do

Exit codes:
  0 done   1 failed or refused   2 usage   3 no such workload, snapshot or process
  4 store, image or snapshot damaged   5 busy, try again   130 interrupted
  `snapd run` in the foreground exits with the workload's own status (126, 127: it could not be run).";

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Keeps everything in this directory: store, catalog, logs and sockets
    ///
    /// The default is /var/lib/snapd-checkpoints for root, else
    /// $XDG_STATE_HOME/snapd-checkpoints (~/.local/state/snapd-checkpoints).
    #[arg(long, global = true, env = "SNAPD_DIR", value_name = "DIR", help_heading = GLOBAL)]
    pub(crate) dir: Option<PathBuf>,
    /// Prints JSON: one document, or one object a line where there is no end
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) json: bool,
    /// Says nothing that is not asked for
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = GLOBAL)]
    pub(crate) quiet: bool,
    /// Says what is being done; twice: in every detail
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = GLOBAL)]
    pub(crate) verbose: u8,
}

const GLOBAL: &str = "Global options";

/// Parses what a person typed, and carries it out.
pub(crate) fn enter() -> ExitCode {
    enter_with(std::env::args_os())
}

fn enter_with(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            if let Some(command) = yet_to_come(&error) {
                let text = format!("`snapd {command}` is not supported by this version of snapd");
                return exit::tell(&Failure::Usage(text), None);
            }
            // Help on standard output, usage on standard error; that nobody reads it is no failure.
            let _ = error.print();
            return exit::code(error.exit_code());
        }
    };
    let context = Context::new(cli.global);
    match cli.command.execute(&context) {
        Ok(code) => exit::code(code),
        Err(failure) => exit::tell(&failure, Some(&context)),
    }
}

/// The command that was typed, if it is one that snapd is going to have: nobody who has read of it
/// has mistyped another.
fn yet_to_come(error: &clap::Error) -> Option<&str> {
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    TO_COME.iter().find(|name| *name == typed).copied()
}

const TO_COME: &[&str] = &[
    "adopt", "attach", "check", "clone", "daemon", "diff", "export", "forget", "import", "key",
    "pause", "pin", "policy", "prune", "pull", "push", "resume", "rm", "service", "start", "tag",
    "top", "unpin", "warm",
];

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_command_to_come_is_no_mistake() {
        for name in TO_COME {
            let refused = Cli::try_parse_from(["snapd", "--json", name, "it"]).unwrap_err();
            assert_eq!(yet_to_come(&refused), Some(*name));
        }
        let mistyped = Cli::try_parse_from(["snapd", "chekpoint"]).unwrap_err();
        assert_eq!(yet_to_come(&mistyped), None);
    }

    /// A command without a word of help, or an option without, is one that nobody finds.
    #[test]
    fn everything_has_help() {
        let mut cli = Cli::command();
        cli.build();
        for command in cli.get_subcommands().filter(|command| command.get_name() != "help") {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            assert!(command.get_after_help().is_some(), "{} has no example", command.get_name());
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {}", command.get_name(), arg.get_id());
            }
        }
    }
}
