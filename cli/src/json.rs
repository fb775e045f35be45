//! What `--json` prints: the field names that scripts rely on. New ones may be added, none renamed.
pub(crate) mod show;

use chrono::{DateTime, Utc};
use serde::Serialize;
use supervisor::wire::{self, Fault};

use crate::render::units::rfc3339;

/// A line of `snapd ls`.
#[derive(Debug, Serialize)]
pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) pid: Option<i32>,
    pub(crate) inner_pid: Option<i32>,
    pub(crate) state: String,
    pub(crate) started_at: Option<String>,
    pub(crate) snapshots: usize,
    pub(crate) last_snapshot: Option<u64>,
    pub(crate) last_snapshot_at: Option<String>,
    pub(crate) next_at: Option<String>,
    pub(crate) restarts: u64,
    pub(crate) restores: u64,
    pub(crate) exit_code: Option<i32>,
}

/// A snapshot, wherever one is shown.
#[derive(Debug, Serialize)]
pub(crate) struct Snapshot {
    name: String,
    seq: u64,
    id: String,
    parent: Option<u64>,
    taken_at: String,
    trigger: &'static str,
    pause_ms: f64,
    took_ms: f64,
    memory_bytes: u64,
    changed_bytes: u64,
    stored_bytes: u64,
    processes: u64,
    threads: u64,
    tags: Vec<String>,
    pinned: bool,
    state: &'static str,
    tracker: &'static str,
}

impl Snapshot {
    pub(crate) fn of(one: &store::Snapshot) -> Self {
        Self {
            name: one.workload.clone(),
            seq: one.seq,
            id: one.id.clone(),
            parent: one.parent,
            taken_at: rfc3339(one.meta.taken_at),
            trigger: one.meta.trigger.as_str(),
            pause_ms: one.meta.pause_ms,
            took_ms: one.meta.took_ms,
            memory_bytes: one.meta.memory_bytes,
            changed_bytes: one.meta.changed_bytes,
            stored_bytes: one.stored_bytes,
            processes: one.meta.processes,
            threads: one.meta.threads,
            tags: one.meta.tags.clone(),
            pinned: one.pinned,
            state: one.state.as_str(),
            tracker: one.meta.tracker.as_str(),
        }
    }
}

/// A line of `snapd events`.
#[derive(Debug, Serialize)]
pub(crate) struct Event {
    pub(crate) at: String,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) seq: Option<u64>,
    pub(crate) reason: String,
    pub(crate) detail: Option<String>,
}

/// A line of `snapd logs`.
#[derive(Debug, Serialize)]
pub(crate) struct LogLine {
    pub(crate) at: String,
    pub(crate) name: String,
    pub(crate) stream: &'static str,
    pub(crate) text: String,
    pub(crate) undone: bool,
}

/// What `restore`, `rollback` and `undump` did.
#[derive(Debug, Serialize)]
pub(crate) struct Restored {
    pub(crate) name: Option<String>,
    pub(crate) seq: Option<u64>,
    pub(crate) pid: i32,
    pub(crate) took_ms: f64,
    pub(crate) notes: Vec<String>,
}

/// What is in the way.
#[derive(Debug, Serialize)]
pub(crate) struct Obstacle {
    code: String,
    pid: Option<i32>,
    inner_pid: Option<i32>,
    object: String,
    reason: String,
    remedy: String,
}

impl Obstacle {
    pub(crate) fn of(found: &wire::Obstacle) -> Self {
        let known = |pid: i32| Some(pid).filter(|pid| *pid != 0);
        Self {
            code: found.code.clone(),
            pid: known(found.pid),
            inner_pid: known(found.inner_pid),
            object: found.object.clone(),
            reason: found.reason.clone(),
            remedy: found.remedy.clone(),
        }
    }
}

/// A command that was refused because of obstacles.
#[derive(Debug, Serialize)]
pub(crate) struct Refusal {
    error: String,
    obstacles: Vec<Obstacle>,
}

impl Refusal {
    pub(crate) fn of(fault: &Fault) -> Self {
        let obstacles = fault.obstacles.iter().map(Obstacle::of).collect();
        Self { error: fault.text.clone(), obstacles }
    }
}

/// What this kernel, machine and account can do.
#[derive(Debug, Serialize)]
pub(crate) struct Feature {
    pub(crate) name: &'static str,
    pub(crate) available: bool,
    pub(crate) needed: bool,
    pub(crate) purpose: &'static str,
    pub(crate) remedy: &'static str,
}

/// `snapd doctor`.
#[derive(Debug, Serialize)]
pub(crate) struct Doctor {
    pub(crate) kernel: String,
    pub(crate) features: Vec<Feature>,
    pub(crate) obstacles: Vec<Obstacle>,
}

/// A time, if there is one.
pub(crate) fn time(at: Option<DateTime<Utc>>) -> Option<String> {
    at.map(rfc3339)
}
