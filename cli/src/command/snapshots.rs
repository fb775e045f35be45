//! `snapd snapshots`.
use clap::Args;
use store::Snapshot;
use supervisor::query;

use crate::context::Context;
use crate::exit::Outcome;
use crate::json;
use crate::output::{print, print_json};
use crate::render::units::{millis, size, time};
use crate::render::{Align, Table};
use crate::values;

/// Lists snapshots, oldest first
///
/// PAUSE is for how long the program stood still, TOOK how long all of it took. MEMORY is what the
/// snapshot holds, NEW-DATA what of it had changed since the one before, STORED what it added to the
/// store once deduplicated and compressed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  snapd snapshots
  snapd snapshots train --json | jq '.[-1].pause_ms'")]
pub(crate) struct Snapshots {
    /// Of this workload only
    #[arg(value_parser = values::name)]
    name: Option<String>,
}

impl Snapshots {
    pub(super) fn execute(self, context: &Context) -> Outcome {
        let all = query::snapshots(&context.home()?, self.name.as_deref())?;
        if context.json {
            print_json(&all.iter().map(json::Snapshot::of).collect::<Vec<_>>())?;
        } else {
            print(&table(&all))?;
        }
        Ok(0)
    }
}

pub(super) fn table(all: &[Snapshot]) -> String {
    use Align::{Cut, Left, Right};
    let mut table = Table::new(&[
        ("SNAPSHOT", Left),
        ("TAKEN", Left),
        ("TRIGGER", Left),
        ("PAUSE", Right),
        ("TOOK", Right),
        ("MEMORY", Right),
        ("NEW-DATA", Right),
        ("STORED", Right),
        ("TAGS", Cut),
        ("STATE", Left),
    ]);
    for one in all {
        let pinned = one.pinned.then_some("(pinned)");
        let tags: Vec<_> = one.meta.tags.iter().map(String::as_str).chain(pinned).collect();
        table.row([
            format!("{}@{}", one.workload, one.seq),
            time(one.meta.taken_at),
            one.meta.trigger.to_string(),
            millis(one.meta.pause_ms),
            millis(one.meta.took_ms),
            size(one.meta.memory_bytes),
            size(one.meta.changed_bytes),
            size(one.stored_bytes),
            tags.join(","),
            one.state.to_string(),
        ]);
    }
    table.text()
}
