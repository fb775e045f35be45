//! `snapd show`.
mod people;

use clap::{Args, ValueEnum};
use engine::view;
use policies::name::Reference;
use supervisor::query::{self, Contents};

use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::json;
use crate::json::show::{Area, File, Process, Show as Shown, Socket, Timer};
use crate::output::{print, print_json};

/// Shows what a snapshot holds
///
/// Processes, memory, descriptors, sockets and timers, and everything noted about it. All PIDs are
/// those that the workload itself sees.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  snapd show train
  snapd show train@3 --what files
  snapd show train --json | jq '.memory | map(.resident_bytes) | add'")]
pub(crate) struct Show {
    /// The workload, or one of its snapshots: NAME, NAME@3, NAME@-1
    #[arg(value_name = "NAME[@N]")]
    snapshot: Reference,
    /// Which part
    #[arg(long, value_enum, value_name = "PART")]
    what: Option<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Tree,
    Memory,
    Files,
    Sockets,
    Timers,
    All,
}

impl Show {
    pub(super) fn execute(self, context: &Context) -> Outcome {
        let home = context.home()?;
        let name = &self.snapshot.name;
        let seq = query::resolve(&home, &self.snapshot)?;
        let listed = query::snapshot(&home, name, seq)?;
        let contents = Contents::open(&home, name, seq)?;
        let shown = self.shown(context, &listed, &contents)?;
        if context.json {
            print_json(&shown)?;
        } else {
            print(&people::text(&listed, &contents.kept()?.definition, &shown))?;
        }
        Ok(0)
    }

    /// Whether a part is wanted. For people the long ones are left out unless asked for.
    fn wants(&self, context: &Context, part: Part) -> bool {
        match self.what {
            None => context.json || part == Part::Tree,
            Some(what) => what == part || what == Part::All,
        }
    }

    fn shown(
        &self,
        context: &Context,
        listed: &store::Snapshot,
        contents: &Contents,
    ) -> Result<Shown, Failure> {
        let wants = |part| self.wants(context, part);
        let inventory = contents.inventory();
        let files = view::files(inventory).map_err(supervisor::Error::from)?;
        Ok(Shown {
            snapshot: json::Snapshot::of(listed),
            tree: wants(Part::Tree).then(|| tree(contents)).transpose()?,
            memory: wants(Part::Memory).then(|| memory(contents)).transpose()?,
            files: wants(Part::Files).then(|| files.iter().map(File::of).collect()),
            sockets: wants(Part::Sockets).then(|| files.iter().filter_map(Socket::of).collect()),
            timers: wants(Part::Timers).then(|| timers(contents, &files)).transpose()?,
            notes: listed.meta.notes.clone(),
        })
    }
}

fn tree(contents: &Contents) -> Result<Vec<Process>, Failure> {
    let rows = view::processes(contents.inventory());
    let commands = contents.commands(&rows)?;
    // The shim is PID 1 of the workload's own namespace; on the host its number is not kept.
    let above = i32::from(!contents.kept()?.definition.host_pids);
    Ok(rows.iter().zip(commands).map(|(row, command)| Process::of(row, above, command)).collect())
}

fn memory(contents: &Contents) -> Result<Vec<Area>, Failure> {
    let rows = view::areas(contents.inventory()).map_err(supervisor::Error::from)?;
    let resident = contents.resident(&rows)?;
    Ok(rows.into_iter().zip(resident).map(|(row, bytes)| Area::of(row, bytes)).collect())
}

fn timers(contents: &Contents, files: &[view::FileRow]) -> Result<Vec<Timer>, Failure> {
    let own = view::timers(contents.inventory()).map_err(supervisor::Error::from)?;
    let descriptors = files.iter().filter_map(Timer::of_descriptor);
    Ok(descriptors.chain(own.into_iter().map(Timer::of)).collect())
}
