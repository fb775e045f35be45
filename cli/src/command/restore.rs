//! `snapd restore`.
use clap::Args;
use policies::name::Reference;
use supervisor::keeper::Begin;
use supervisor::{bridge, client, query};

use super::run::{privileged, start};
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::json;
use crate::output::print_json;
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
    #[arg(long = "as", value_name = "NEW", value_parser = values::name, hide = true)]
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
}

impl Restore {
    pub(super) fn execute(self, context: &Context) -> Outcome {
        if self.under.is_some() {
            return Err(Failure::Usage("--as is not supported by this version of snapd".into()));
        }
        privileged()?;
        let home = context.home()?;
        let name = self.snapshot.name.clone();
        let seq = query::resolve(&home, &self.snapshot)?;
        if client::is_running(&home, &name)? {
            if !self.replace {
                return Err(Failure::Refused {
                    text: format!("workload {name:?} is running"),
                    hint: Some(format!(
                        "`--replace` ends it first; so does `snapd rollback {name}@{seq}`"
                    )),
                    sort: supervisor::error::Sort::Busy,
                });
            }
            return replace(context, &home, &name, seq);
        }
        if self.verify {
            verify(&home, &name, seq)?;
        }
        let definition = bridge::kept(&home, &name, seq)?.definition;
        let code = start(context, home.clone(), definition, Begin::Restore(seq), self.detach)?;
        if self.detach && context.json && code == 0 {
            told(&home, &name, seq, None)?;
        }
        Ok(code)
    }
}

fn verify(home: &supervisor::home::Home, name: &str, seq: u64) -> Result<(), Failure> {
    let Some(store) = query::store(home)? else { return Ok(()) };
    let read = store.read(name, seq).and_then(|reader| reader.verify());
    Ok(read.map_err(supervisor::Error::from)?)
}

/// Takes a running workload back; its keeper keeps its terminal.
pub(super) fn replace(
    context: &Context,
    home: &supervisor::home::Home,
    name: &str,
    seq: u64,
) -> Outcome {
    let began = std::time::Instant::now();
    client::rollback(home, name, seq)?;
    if context.json {
        told(home, name, seq, Some(began))?;
    }
    Ok(0)
}

fn told(
    home: &supervisor::home::Home,
    name: &str,
    seq: u64,
    began: Option<std::time::Instant>,
) -> Result<(), Failure> {
    let pid = client::status(home, name)?.live.map_or(0, |live| live.pid);
    let took_ms = began.map_or(0.0, |began| began.elapsed().as_secs_f64() * 1_000.0);
    let name = Some(name.to_owned());
    print_json(&json::Restored { name, seq: Some(seq), pid, took_ms, notes: Vec::new() })
}
