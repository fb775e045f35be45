//! `snapd run`.
pub(super) mod options;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use clap::Args;
use policies::name::Reference;
use supervisor::definition::Definition;
use supervisor::home::Home;
use supervisor::keeper::Begin;
use supervisor::{client, launch, query};

use self::options::Options;
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::output::{print, print_json};
use crate::values;

/// Runs a command under supervision
///
/// The command runs in the foreground, with this terminal, as it would without snapd; no daemon is
/// needed. With a schedule it is saved while it runs. After a crash it comes back from its newest
/// snapshot by itself, its files with it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  snapd run --every 10s -- python3 train.py
  snapd run -d --name web --every 1m --keep-last 20 -- ./server --port 8080
  generate | snapd run --every 5s -- sort > sorted
  snapd run --name job --resume --every 1m -- ./job     goes on where the last run was saved")]
pub(crate) struct Run {
    /// Names the workload; the default is made from the command
    #[arg(long, value_parser = values::name)]
    name: Option<String>,
    /// Returns once it runs, printing its name
    #[arg(short, long)]
    detach: bool,
    /// Starts from the beginning although NAME has snapshots
    #[arg(long, conflicts_with = "resume")]
    fresh: bool,
    /// Goes on from the newest snapshot if there is one, and starts from the beginning if not
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    options: Options,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Run {
    pub(super) fn execute(self, context: &Context) -> Outcome {
        self.options.check()?;
        privileged()?;
        let home = context.home()?;
        let command: Vec<_> = self.command.iter().cloned().map(OsString::into_vec).collect();
        let name = match &self.name {
            Some(name) => name.clone(),
            None => free_name(&home, self.command.first())?,
        };
        let mut definition = launch::define(&name, command)?;
        self.options.apply(&mut definition)?;
        let begin = self.begin(&home, &name)?;
        start(context, home, definition, begin, self.detach)
    }

    /// From the beginning or from a snapshot; refused where both could be meant.
    fn begin(&self, home: &Home, name: &str) -> Result<Begin, Failure> {
        if self.fresh || client::is_running(home, name)? {
            return Ok(Begin::Fresh); // That it runs already is found out under its lock.
        }
        let newest = newest(home, name)?;
        match newest {
            Some(seq) if self.resume => Ok(Begin::Restore(seq)),
            Some(seq) => Err(Failure::refused(
                format!("workload {name:?} is not running, and has the snapshot {name}@{seq}"),
                format!("`snapd restore {name}` goes on from it, `--fresh` starts anew"),
            )),
            None => Ok(Begin::Fresh),
        }
    }
}

/// The newest restorable snapshot of the current line, if there is one.
fn newest(home: &Home, name: &str) -> Result<Option<u64>, Failure> {
    let wanted = Reference { name: name.to_owned(), which: policies::name::Which::Back(0) };
    match query::resolve(home, &wanted) {
        Ok(seq) => Ok(Some(seq)),
        Err(supervisor::Error::Missing(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn free_name(home: &Home, command: Option<&OsString>) -> Result<String, Failure> {
    let command = command.map(|command| command.to_string_lossy()).unwrap_or_default();
    let listed = client::list(home)?;
    let saved = query::store(home)?.map(|store| store.names()).transpose();
    let saved = saved.map_err(supervisor::Error::from)?.unwrap_or_default();
    let taken = |name: &str| {
        listed.iter().any(|one| one.entry.definition.name == name)
            || saved.iter().any(|one| one == name)
    };
    Ok(policies::name::from_command(&command, taken))
}

/// Starts it in the foreground, or detached.
pub(super) fn start(
    context: &Context,
    home: Home,
    definition: Definition,
    begin: Begin,
    detach: bool,
) -> Outcome {
    if !detach {
        return Ok(launch::foreground(home, definition, begin, context.json)?);
    }
    if let Some(code) = launch::detached(&home, &definition, begin)? {
        return Ok(code);
    }
    match begin {
        Begin::Restore(_) => {}
        _ if context.json => print_json(&super::ls::row(&home, &definition.name)?)?,
        _ => print(&format!("{}\n", definition.name))?,
    }
    Ok(0)
}

/// Supervision makes namespaces and restores PIDs: an ordinary user is told before anything is tried.
pub(super) fn privileged() -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::refused(
        "an ordinary user cannot supervise programs: namespaces, /proc/PID/map_files and the choice \
         of PIDs need CAP_SYS_ADMIN, CAP_SYS_PTRACE and CAP_CHECKPOINT_RESTORE",
        "run it as root, for example with sudo; `snapd doctor` lists what this account can do",
    ))
}
