//! How a workload is run: the options that become part of its definition.
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use supervisor::definition::{self, Definition, Stream};

use crate::exit::Failure;
use crate::values;

/// Options of `run`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Takes a snapshot at every such interval: 500ms, 10s, 5m, 1h30m, 2d
    #[arg(long, value_name = "DURATION", value_parser = values::interval, help_heading = WHEN)]
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
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    keep_last: u32,
    /// When it is brought back after it has ended
    #[arg(long, value_enum, value_name = "WHEN", default_value_t, help_heading = ENDS)]
    restart: Restart,
    /// Gives up when it was brought back more often than this
    #[arg(long, value_name = "N/DURATION", default_value = "10/60s", value_parser = limit)]
    #[arg(help_heading = ENDS)]
    restart_limit: (u32, Duration),
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
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = values::interval)]
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
    /// Saved, and re-established
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
    pub(super) fn check(&self) -> Result<(), Failure> {
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

    /// Puts them into a definition that has the defaults.
    pub(super) fn apply(&self, it: &mut Definition) -> Result<(), Failure> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        it.every_ms = self.every.map_or(0, millis);
        it.keep_last = self.keep_last;
        it.set_restart(match self.restart {
            Restart::No => definition::Restart::No,
            Restart::OnFailure => definition::Restart::OnFailure,
            Restart::Always => definition::Restart::Always,
        });
        it.restart_limit = self.restart_limit.0;
        it.restart_window_ms = millis(self.restart_limit.1);
        it.freeze_timeout_ms = millis(self.freeze_timeout);
        it.keep_files = self.files == Some(Files::Keep);
        it.force_rollback = self.files == Some(Files::Rollback);
        it.close_tcp = self.tcp.closes()?;
        it.host_pids = self.pidns == PidNamespace::Host;
        for path in &self.track {
            it.track.push(absolute(path)?.into_os_string().into_vec());
        }
        if let Some(cwd) = &self.cwd {
            it.cwd = absolute(cwd)?.into_os_string().into_vec();
        }
        it.set_variables(self.env.iter().cloned().map(OsString::into_vec));
        it.user = self.user.as_deref().map(user).transpose()?;
        self.streams(it);
        Ok(())
    }

    fn streams(&self, it: &mut Definition) {
        for stream in &mut it.streams {
            let terminal = *stream == i32::from(Stream::Terminal);
            match self.tty {
                Tty::Yes => *stream = Stream::Terminal.into(),
                Tty::No if terminal => *stream = Stream::Pipe.into(),
                Tty::Auto | Tty::No => {}
            }
        }
    }
}

/// A path that means the same wherever it is used.
pub(in crate::command) fn absolute(path: &std::path::Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| {
        Failure::Usage(format!("{:?} is no path: {error}", path.display().to_string()))
    })
}

/// `NAME=VALUE`; the name alone takes the value that it has here.
fn variable(text: &str) -> Result<OsString, String> {
    match text.split_once('=') {
        Some(("", _)) | None => Err(format!("{text:?} is not NAME=VALUE")),
        Some(_) => Ok(text.into()),
    }
}

/// `10/60s`.
fn limit(text: &str) -> Result<(u32, Duration), String> {
    let wrong = || format!("{text:?} is not a limit like 10/60s: so many in such a time");
    let (count, window) = text.split_once('/').ok_or_else(wrong)?;
    let window = values::interval(window).map_err(|_| wrong())?;
    Ok((count.parse().map_err(|_| wrong())?, window))
}

/// `USER[:GROUP]`, by names or numbers, with the groups that the user is in.
fn user(text: &str) -> Result<definition::User, Failure> {
    let (who, which) = text.split_once(':').map_or((text, None), |(who, group)| (who, Some(group)));
    let unknown = |what: &str| Failure::Usage(format!("--user {text}: there is no {what}"));
    let found = User::from_name(who).ok().flatten();
    let found = found.or_else(|| User::from_uid(Uid::from_raw(who.parse().ok()?)).ok().flatten());
    let numbered = who.parse::<u32>().ok();
    let uid = found.as_ref().map(|user| user.uid.as_raw()).or(numbered);
    let uid = uid.ok_or_else(|| unknown(&format!("user {who:?}")))?;
    let gid = match which {
        Some(group) => {
            let named = Group::from_name(group).ok().flatten().map(|group| group.gid.as_raw());
            let gid = named.or_else(|| group.parse().ok());
            gid.ok_or_else(|| unknown(&format!("group {group:?}")))?
        }
        None => found.as_ref().map_or(uid, |user| user.gid.as_raw()),
    };
    let name = found.and_then(|user| CString::new(user.name).ok());
    let groups = name.and_then(|name| getgrouplist(&name, Gid::from_raw(gid)).ok());
    let groups = groups.unwrap_or_else(|| vec![Gid::from_raw(gid)]);
    let groups = groups.into_iter().map(Gid::as_raw).collect();
    Ok(definition::User { user: uid, group: gid, groups })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_say_how_often_and_in_which_time() {
        assert_eq!(limit("3/1m"), Ok((3, Duration::from_secs(60))));
        for bad in ["3", "3/", "/1m", "x/1m", "3/0s", "-1/1m"] {
            assert!(limit(bad).unwrap_err().contains("10/60s"), "{bad}");
        }
    }

    #[test]
    fn users_go_by_name_and_number() {
        let root = user("root").unwrap();
        assert_eq!((root.user, root.group), (0, 0));
        let odd = user("4321:0").unwrap();
        assert_eq!((odd.user, odd.group, odd.groups), (4321, 0, vec![0]));
        assert!(user("no-such-user").is_err());
        assert!(user("root:no-such-group").is_err());
    }

    #[test]
    fn variables_have_names() {
        assert!(variable("A=").is_ok());
        assert!(variable("A").is_err());
        assert!(variable("=1").is_err());
    }
}
