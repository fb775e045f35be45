//! `snapd ls`.
use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use store::Snapshot;
use supervisor::book::Entry;
use supervisor::client::{self, Listed};
use supervisor::definition::Definition;
use supervisor::home::Home;
use supervisor::query;

use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::json;
use crate::output::{print, print_json};
use crate::render::units::{ago, at_ms, span};
use crate::render::{Align, Table};

/// Lists all workloads, those that have ended too
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  snapd ls
  snapd ls --json | jq -r '.[] | select(.state == \"failed\") | .name'")]
pub(crate) struct Ls {}

/// What is known of one workload.
struct Row {
    listed: Listed,
    snapshots: usize,
    last: Option<Snapshot>,
    started_at: Option<DateTime<Utc>>,
    next_at: Option<DateTime<Utc>>,
}

impl Ls {
    pub(super) fn execute(self, context: &Context) -> Outcome {
        let home = context.home()?;
        let mut snapshots = BTreeMap::<_, Vec<_>>::new();
        for one in query::snapshots(&home, None)? {
            snapshots.entry(one.workload.clone()).or_default().push(one);
        }
        let now = Utc::now();
        let row = |listed: Listed| {
            let mut own = snapshots.remove(&listed.entry.definition.name).unwrap_or_default();
            Row::of(listed, own.len(), own.pop(), now)
        };
        let mut rows: Vec<_> = client::list(&home)?.into_iter().map(row).collect();
        rows.extend(snapshots.into_iter().map(|(name, own)| Row::of_snapshots(&name, own, now)));
        if context.json {
            print_json(&rows.iter().map(Row::json).collect::<Vec<_>>())?;
        } else {
            print(&table(&rows, now))?;
        }
        Ok(0)
    }
}

/// One workload, as `--json` shows it.
pub(super) fn row(home: &Home, name: &str) -> Result<json::Workload, Failure> {
    let mut snapshots = query::snapshots(home, Some(name))?;
    let listed = client::status(home, name)?;
    Ok(Row::of(listed, snapshots.len(), snapshots.pop(), Utc::now()).json())
}

impl Row {
    /// Of a workload that only its snapshots know of: the catalog was lost.
    fn of_snapshots(name: &str, mut own: Vec<Snapshot>, now: DateTime<Utc>) -> Self {
        let definition = Definition::new(name, Vec::new());
        let entry = Entry { definition, state: "stopped".into(), ..Entry::default() };
        Self::of(Listed { entry, live: None }, own.len(), own.pop(), now)
    }

    fn of(listed: Listed, snapshots: usize, last: Option<Snapshot>, now: DateTime<Utc>) -> Self {
        let started_at = listed.entry.started_at_ms;
        let started_at = (started_at != 0).then(|| at_ms(started_at));
        let next_in = listed.live.as_ref().and_then(|live| live.next_in_ms);
        let next_in = next_in.and_then(|ms| TimeDelta::try_milliseconds(ms.try_into().ok()?));
        let next_at = next_in.and_then(|wait| now.checked_add_signed(wait));
        Self { listed, snapshots, last, started_at, next_at }
    }

    fn state(&self) -> &str {
        let live = self.listed.live.as_ref().map(|live| live.state.as_str());
        live.unwrap_or(&self.listed.entry.state)
    }

    fn pid(&self) -> Option<i32> {
        self.listed.live.as_ref().map(|live| live.pid).filter(|pid| *pid != 0)
    }

    fn json(&self) -> json::Workload {
        let entry = &self.listed.entry;
        let inner_pid = self.listed.live.as_ref().map(|live| live.inner_pid);
        json::Workload {
            name: entry.definition.name.clone(),
            pid: self.pid(),
            inner_pid: inner_pid.filter(|pid| *pid != 0),
            state: self.state().to_owned(),
            started_at: json::time(self.started_at),
            snapshots: self.snapshots,
            last_snapshot: self.last.as_ref().map(|last| last.seq),
            last_snapshot_at: json::time(self.last.as_ref().map(|last| last.meta.taken_at)),
            next_at: json::time(self.next_at),
            restarts: entry.restarts,
            restores: entry.restores,
            exit_code: entry.exit_code,
        }
    }

    fn cells(&self, now: DateTime<Utc>) -> [String; 8] {
        let until =
            |at: DateTime<Utc>| format!("in {}", span((at - now).to_std().unwrap_or_default()));
        let up = self.pid().and(self.started_at).map(|at| (now - at).to_std().unwrap_or_default());
        let none = || "-".to_owned();
        [
            self.listed.entry.definition.name.clone(),
            self.state().to_owned(),
            self.pid().map_or_else(none, |pid| pid.to_string()),
            up.map_or_else(none, span),
            self.snapshots.to_string(),
            self.last.as_ref().map_or_else(none, |last| ago(last.meta.taken_at, now)),
            self.next_at.map_or_else(none, until),
            self.listed.entry.restarts.to_string(),
        ]
    }
}

fn table(rows: &[Row], now: DateTime<Utc>) -> String {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("NAME", Left),
        ("STATE", Left),
        ("PID", Right),
        ("UPTIME", Right),
        ("SNAPSHOTS", Right),
        ("LAST", Right),
        ("NEXT", Right),
        ("RESTARTS", Right),
    ]);
    rows.iter().for_each(|row| table.row(row.cells(now)));
    table.text()
}
