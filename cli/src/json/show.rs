//! `snapd show`: a snapshot with what it holds. All numbers are those that the workload sees.
use engine::view::{AreaRow, FileRow, ProcessRow, TimerRow};
use serde::Serialize;

use super::Snapshot;

/// The snapshot's own fields, and those parts that were asked for.
#[derive(Debug, Serialize)]
pub(crate) struct Show {
    #[serde(flatten)]
    pub(crate) snapshot: Snapshot,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tree: Option<Vec<Process>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<Vec<Area>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) files: Option<Vec<File>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sockets: Option<Vec<Socket>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timers: Option<Vec<Timer>>,
    pub(crate) notes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) ppid: i32,
    pub(crate) pgid: i32,
    pub(crate) sid: i32,
    pub(crate) state: &'static str,
    pub(crate) threads: usize,
    pub(crate) command: String,
}

impl Process {
    /// `above` is who is the parent of those whose parent is not in the tree.
    pub(crate) fn of(row: &ProcessRow, above: i32, command: String) -> Self {
        Self {
            pid: row.pid,
            ppid: row.parent.unwrap_or(above),
            pgid: row.group,
            sid: row.session,
            state: row.state,
            threads: row.threads,
            command,
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Area {
    pub(crate) pid: i32,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) perm: String,
    pub(crate) name: String,
    pub(crate) resident_bytes: u64,
}

impl Area {
    pub(crate) fn of(row: AreaRow, resident_bytes: u64) -> Self {
        let AreaRow { pid, start, end, perm, name, .. } = row;
        Self { pid, start, end, perm, name, resident_bytes }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct File {
    pub(crate) pid: i32,
    pub(crate) fd: i32,
    pub(crate) kind: String,
    pub(crate) target: String,
    pub(crate) position: i64,
    pub(crate) flags: i32,
    pub(crate) cloexec: bool,
}

impl File {
    pub(crate) fn of(row: &FileRow) -> Self {
        Self {
            pid: row.pid,
            fd: row.fd,
            kind: row.kind.clone(),
            target: row.target.clone(),
            position: row.position,
            flags: row.flags,
            cloexec: row.cloexec,
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Socket {
    pub(crate) pid: i32,
    pub(crate) fd: i32,
    pub(crate) kind: String,
    pub(crate) family: &'static str,
    #[serde(rename = "type")]
    pub(crate) sort: &'static str,
    pub(crate) state: &'static str,
    pub(crate) local: String,
    pub(crate) peer: String,
}

impl Socket {
    pub(crate) fn of(row: &FileRow) -> Option<Self> {
        let socket = row.socket.clone()?;
        Some(Self {
            pid: row.pid,
            fd: row.fd,
            kind: row.kind.clone(),
            family: socket.family,
            sort: socket.sort,
            state: socket.state,
            local: socket.local,
            peer: socket.peer,
        })
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Timer {
    pub(crate) pid: i32,
    pub(crate) kind: &'static str,
    pub(crate) fd: Option<i32>,
    pub(crate) id: Option<u32>,
    pub(crate) clock: String,
    pub(crate) remaining_ms: f64,
    pub(crate) interval_ms: f64,
}

impl Timer {
    pub(crate) fn of_descriptor(row: &FileRow) -> Option<Self> {
        let timer = row.timer.clone()?;
        Some(Self {
            pid: row.pid,
            kind: "timerfd",
            fd: Some(row.fd),
            id: None,
            clock: timer.clock,
            remaining_ms: millis(timer.remaining_ns),
            interval_ms: millis(timer.interval_ns),
        })
    }

    pub(crate) fn of(row: TimerRow) -> Self {
        Self {
            pid: row.pid,
            kind: row.kind,
            fd: None,
            id: Some(row.id),
            clock: row.timer.clock,
            remaining_ms: millis(row.timer.remaining_ns),
            interval_ms: millis(row.timer.interval_ns),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people and scripts: 2^53 ns are 104 days")]
fn millis(ns: i64) -> f64 {
    ns as f64 / 1e6
}
