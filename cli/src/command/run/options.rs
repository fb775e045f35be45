//! How a workload is run: the options that become part of its definition.
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use policies::backoff::Limit;
use policies::restart;
use supervisor::options::{self, Run};

use crate::exit::Failure;
use crate::values;

/// Options of `run`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Takes a snapshot at every such interval: 500ms, 10s, 5m, 1h30m, 2d
    #[arg(long, value_name = "DURATION", value_parser = values::interval, allow_hyphen_values = true, help_heading = WHEN)]
    every: Option<Duration>,
    /// Takes snapshots at these times (five fields, as in crontab)
    #[arg(long, value_name = "EXPRESSION", help_heading = WHEN, hide = true)]
    cron: Option<String>,
    /// Takes a snapshot on a trigger
    #[arg(long, value_name = "TRIGGER", help_heading = WHEN, hide = true)]
    on: Vec<String>,
    /// Takes schedule and retention from a policy file
    #[arg(long, value_name = "FILE", help_heading = WHEN, hide = true)]
    policy: Option<PathBuf>,
    /// Keeps so many snapshots: older ones go by themselves
    #[arg(long, value_name = "N", default_value_t = 10, help_heading = WHEN)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    keep_last: u32,
    /// When it is brought back after it has ended
    #[arg(long, value_enum, value_name = "WHEN", default_value_t, help_heading = ENDS)]
    restart: Restart,
    /// Gives up when it was brought back more often than this
    #[arg(long, value_name = "N/DURATION", default_value = "10/60s", value_parser = values::limit, allow_hyphen_values = true)]
    #[arg(help_heading = ENDS)]
    restart_limit: Limit,
    /// What happens when the machine starts
    #[arg(long, value_enum, value_name = "WHAT", default_value_t, help_heading = ENDS, hide = true)]
    boot: Boot,
    /// A file or directory whose contents are part of every snapshot (repeatable)
    #[arg(long, value_name = "PATH", help_heading = SAVED)]
    track: Vec<PathBuf>,
    /// What a restore does with files that have changed since
    #[arg(long, value_enum, value_name = "HOW", help_heading = SAVED)]
    files: Option<Files>,
    /// What becomes of established TCP connections
    #[arg(long, value_enum, value_name = "HOW", default_value_t, help_heading = SAVED)]
    tcp: Tcp,
    /// How long it may take until all of it stands still; else the snapshot is given up
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = values::interval, allow_hyphen_values = true)]
    #[arg(help_heading = SAVED)]
    freeze_timeout: Duration,
    /// Whether it has PIDs of its own, which are always free again
    #[arg(long, value_enum, value_name = "WHICH", default_value_t, help_heading = RUNS)]
    pidns: PidNamespace,
    /// Whether it runs on a terminal of snapd's
    #[arg(long, value_enum, value_name = "WHEN", default_value_t, help_heading = RUNS)]
    tty: Tty,
    /// Sets an environment variable (repeatable)
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = variable, help_heading = RUNS)]
    env: Vec<OsString>,
    /// Runs it in this directory
    #[arg(long, value_name = "DIR", help_heading = RUNS)]
    cwd: Option<PathBuf>,
    /// Runs it as this user, by name or number
    #[arg(long, value_name = "USER[:GROUP]", help_heading = RUNS)]
    user: Option<String>,
}

const WHEN: &str = "When it is saved";
const ENDS: &str = "When it ends";
const SAVED: &str = "What is saved";
const RUNS: &str = "How it runs";

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Restart {
    /// Never
    No,
    /// After a crash
    #[default]
    OnFailure,
    /// After a crash; and afresh after a normal end
    Always,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Boot {
    Restore,
    Fresh,
    #[default]
    No,
}

/// What a restore does with files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::command) enum Files {
    /// Puts back what they held; given in so many words, also of those that others are writing
    Rollback,
    /// Leaves them as they are
    Keep,
}

/// What becomes of connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::command) enum Tcp {
    /// Saved, and re-established (not in this version)
    Keep,
    /// The restored program finds them reset
    Close,
    /// No snapshot is taken while there are any
    #[default]
    Refuse,
}

impl Tcp {
    /// Whether they are closed; what cannot be done yet is refused.
    pub(in crate::command) fn closes(self) -> Result<bool, Failure> {
        match self {
            Self::Keep => Err(Failure::refused(
                "--tcp keep is not supported yet: established connections cannot be saved",
                "--tcp close has the restored program find them reset",
            )),
            other => Ok(other == Self::Close),
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum PidNamespace {
    /// Its own
    #[default]
    Private,
    /// The host's: a restore needs its PIDs to be free
    Host,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Tty {
    /// Each standard stream that is a terminal
    #[default]
    Auto,
    /// All three standard streams
    Yes,
    /// None: a stream that is a terminal becomes a pipe
    No,
}

impl Options {
    /// Refuses what is not there yet, rather than to do without it in silence.
    fn check(&self) -> Result<(), Failure> {
        let asked = [
            (self.cron.is_some(), "--cron"),
            (!self.on.is_empty(), "--on"),
            (self.policy.is_some(), "--policy"),
            (self.boot != Boot::No, "--boot"),
        ];
        match asked.iter().find(|(asked, _)| *asked) {
            Some((_, option)) => {
                Err(Failure::Usage(format!("{option} is not supported by this version of snapd")))
            }
            None => self.tcp.closes().map(drop),
        }
    }

    /// As the supervisor wants them.
    pub(super) fn fill(self, it: &mut Run) -> Result<(), Failure> {
        self.check()?;
        it.every = self.every;
        it.keep_last = self.keep_last;
        it.restart = match self.restart {
            Restart::No => restart::Restart::No,
            Restart::OnFailure => restart::Restart::OnFailure,
            Restart::Always => restart::Restart::Always,
        };
        it.restart_limit = self.restart_limit;
        it.freeze_timeout = self.freeze_timeout;
        it.files = self.files.map(Files::told);
        it.tcp = if self.tcp.closes()? { options::Tcp::Close } else { options::Tcp::Refuse };
        it.pidns = match self.pidns {
            PidNamespace::Private => options::Pidns::Private,
            PidNamespace::Host => options::Pidns::Host,
        };
        it.tty = match self.tty {
            Tty::Auto => options::Tty::Auto,
            Tty::Yes => options::Tty::Yes,
            Tty::No => options::Tty::No,
        };
        it.track = self.track;
        it.cwd = self.cwd;
        it.env = self.env.into_iter().map(OsString::into_vec).collect();
        if let Some(user) = &self.user {
            let unknown = |error| Failure::Usage(format!("--user {user}: {error}"));
            supervisor::define::check_user(user).map_err(unknown)?;
        }
        it.user = self.user;
        Ok(())
    }
}

impl Files {
    /// In the supervisor's words.
    pub(in crate::command) fn told(self) -> options::Files {
        match self {
            Self::Rollback => options::Files::RollBack,
            Self::Keep => options::Files::Keep,
        }
    }
}

/// `NAME=VALUE`; the name alone takes the value that it has here.
fn variable(text: &str) -> Result<OsString, String> {
    match text.split_once('=') {
        Some(("", _)) | None => Err(format!("{text:?} is not NAME=VALUE")),
        Some(_) => Ok(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_have_names() {
        assert!(variable("A=").is_ok());
        assert!(variable("A").is_err());
        assert!(variable("=1").is_err());
    }
}
