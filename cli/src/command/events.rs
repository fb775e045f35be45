//! `snapd events`.
use clap::Args;
use supervisor::book::{Book, Happening};

use super::follow::pause;
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::json;
use crate::output::{print, print_json};
use crate::render::units::{at_ms, rfc3339, time};
use crate::values;

/// Tells what has happened to a workload, and why
///
/// Starts, snapshots, crashes, restores, and each decision of the recovery with its reason.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  snapd events train
  snapd events train -f --json | jq 'select(.kind == \"crashed\")'")]
pub(crate) struct Events {
    /// The workload
    #[arg(value_parser = values::name)]
    name: String,
    /// Goes on with what happens from now on
    #[arg(short, long)]
    follow: bool,
}

impl Events {
    pub(super) fn execute(self, context: &Context) -> Outcome {
        let home = context.home()?;
        let book = Book::open(&home)?;
        book.entry(&self.name)?;
        let mut last = 0;
        loop {
            for one in book.happenings_after(&self.name, last)? {
                self.show(context, &one)?;
                last = one.number;
            }
            if !self.follow {
                return Ok(0);
            }
            pause();
        }
    }

    fn show(&self, context: &Context, one: &Happening) -> Result<(), Failure> {
        let at = at_ms(one.at_ms);
        if context.json {
            return print_json(&json::Event {
                at: rfc3339(at),
                name: self.name.clone(),
                kind: one.kind.clone(),
                seq: one.seq,
                reason: one.reason.clone(),
                detail: one.detail.clone(),
            });
        }
        let which = one.seq.map(|seq| format!("{}@{seq}", self.name)).unwrap_or_default();
        let line = format!("{}  {:<18}  {which:<12}  {}", time(at), one.kind, one.reason);
        print(&format!("{}\n", line.trim_end()))
    }
}
