//! `snapd restore`.
use clap::Args;
use policies::name::Reference;
use supervisor::error::Sort;
use supervisor::home::Home;
use supervisor::options::{self, Done, News, Up};
use supervisor::{Error, launch, query};

use super::run::options::{Files, Tcp};
use super::run::privileged;
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::json;
use crate::output::print_json;
use crate::progress;
use crate::values;

/// Brings a workload back from a snapshot
///
/// It runs in the foreground, with this terminal, unless detached. Its files go back with it; what
/// that overwrites or removes is kept in DIR/undone/NAME.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  snapd restore train           from the newest snapshot
  snapd restore -d train@-1     from the one before, in the background
  snapd restore --replace train@3")]
pub(crate) struct Restore {
    /// The workload, or one of its snapshots: NAME, NAME@3, NAME@-1
    #[arg(value_name = "NAME[@N]")]
    snapshot: Reference,
    /// Restores it under another name
    #[arg(long = "as", value_name = "NEW", value_parser = values::name)]
    under: Option<String>,
    /// Returns once it runs
    #[arg(short, long)]
    detach: bool,
    /// Ends it first if it runs
    #[arg(long)]
    replace: bool,
    /// Reads and checks the whole snapshot before anything is started
    #[arg(long)]
    verify: bool,
    /// Goes on although an executable or library is no longer the same
    #[arg(long)]
    accept_changed: bool,
    /// What it does with files that have changed since, instead of as the workload was started
    #[arg(long, value_enum, value_name = "HOW")]
    files: Option<Files>,
    /// What becomes of TCP connections, instead of as the workload was started
    #[arg(long, value_enum, value_name = "HOW")]
    tcp: Option<Tcp>,
}

impl Restore {
    pub(super) fn execute(self, context: &Context) -> Outcome {
        privileged()?;
        let home = context.home()?;
        let seq = query::resolve(&home, &self.snapshot)?;
        let mut how = options::Restore::new(&self.snapshot.name, Some(seq));
        (how.as_new, how.detach, how.replace) = (self.under, self.detach, self.replace);
        (how.verify, how.accept_changed) = (self.verify, self.accept_changed);
        how.files = self.files.map(Files::told);
        how.tcp = match self.tcp {
            Some(tcp) if tcp.closes()? => Some(options::Tcp::Close),
            Some(_) => Some(options::Tcp::Refuse),
            None => None,
        };
        bring(context, &home, how)
    }
}

/// Brings it back, and says so once it runs.
pub(super) fn bring(context: &Context, home: &Home, mut how: options::Restore) -> Outcome {
    how.json = context.json;
    let tell = context.json && !how.detach;
    let ear = progress::ear(context, "restoring", move |news| {
        if let (true, News::Up(up)) = (tell, news) {
            drop(told(&up));
        }
    });
    let done = launch::restore(home, &how, &ear).map_err(|error| match error {
        Error::Busy(text) if !how.replace => {
            let hint = Some("--replace ends it first".to_owned());
            Failure::Refused { text, hint, sort: Sort::Busy }
        }
        other => other.into(),
    })?;
    match done {
        Done::Ended(status) => return Ok(status),
        Done::Detached(up) if context.json => told(&up)?,
        Done::Detached(_) => {}
    }
    Ok(0)
}

fn told(up: &Up) -> Result<(), Failure> {
    print_json(&json::Restored {
        name: Some(up.name.clone()),
        seq: up.seq,
        pid: up.pid,
        took_ms: up.took.as_secs_f64() * 1_000.0,
        notes: Vec::new(),
    })
}
