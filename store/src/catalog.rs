//! The catalog: an index of snapshots, and what is known of workloads.
//!
//! What it says of snapshots is derived: rows are added from manifests that it does not know, and
//! removed when their manifest is gone. Losing the file loses events and states, never a snapshot.
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use crate::error::{Error, Result};
use crate::facts::{Event, Meta, Snapshot, SnapshotState, Workload};
use crate::layout::Store;
use crate::line::Line;

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS workloads (
        name TEXT PRIMARY KEY, definition BLOB NOT NULL, state TEXT NOT NULL,
        restarts INTEGER NOT NULL, restores INTEGER NOT NULL, exit_code INTEGER, started_at TEXT) STRICT;
    CREATE TABLE IF NOT EXISTS events (
        id INTEGER PRIMARY KEY, at TEXT NOT NULL, workload TEXT NOT NULL, kind TEXT NOT NULL,
        seq INTEGER, reason TEXT NOT NULL, detail TEXT) STRICT;
    CREATE INDEX IF NOT EXISTS events_of ON events (workload, id);
    CREATE TABLE IF NOT EXISTS snapshots (
        workload TEXT NOT NULL, seq INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL,
        PRIMARY KEY (workload, seq)) STRICT;
    CREATE TABLE IF NOT EXISTS facts (
        workload TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
        PRIMARY KEY (workload, key)) STRICT;
    CREATE TABLE IF NOT EXISTS heads (
        workload TEXT PRIMARY KEY, seq INTEGER, after INTEGER NOT NULL) STRICT;
";

/// How long another process may keep it locked.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// `SQLite` does not wait by itself where it could wait for ever: going over to a write-ahead log
/// while somebody else does, or goes back from it as the last one to leave.
fn prepare(database: &Connection) -> rusqlite::Result<()> {
    for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
        match database.execute_batch(SCHEMA) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {}
            done => return done,
        }
        std::thread::sleep(PAUSE);
    }
    database.execute_batch(SCHEMA)
}

/// A connection that waits for the next question, and the file it leads to.
pub(crate) type Waiting = Arc<Mutex<Option<(u64, Connection)>>>;

/// An open catalog. Several processes may have it open at once.
#[derive(Debug)]
pub(crate) struct Catalog {
    store: Store,
    path: PathBuf,
    inode: u64,
    /// There until this is dropped, when it goes back to the store.
    database: Option<Connection>,
    /// Nobody relies on a connection that failed.
    broken: AtomicBool,
}

impl Catalog {
    /// Opens it, made if there is none. A connection that is there already is used again, unless
    /// somebody put another file in its place.
    pub(crate) fn open(store: &Store) -> Result<Self> {
        let path = store.dir().join("catalog.sqlite");
        let inode = || std::fs::metadata(&path).map_or(0, |meta| meta.ino());
        let waiting = store.waiting().lock().unwrap_or_else(PoisonError::into_inner).take();
        let database = match waiting.filter(|(known, _)| *known == inode()) {
            Some((_, database)) => database,
            None => Self::connect(&path)?,
        };
        let (store, inode, broken) = (store.clone(), inode(), AtomicBool::new(false));
        Ok(Self { store, path, inode, database: Some(database), broken })
    }

    fn connect(path: &Path) -> Result<Connection> {
        let failed = |source| Error::Catalog { path: path.to_owned(), source };
        let database = Connection::open(path).map_err(failed)?;
        private(path)?;
        database.busy_timeout(PATIENCE).map_err(failed)?;
        prepare(&database).map_err(failed)?;
        Ok(database)
    }

    fn database(&self) -> Result<&Connection> {
        let lost = || Error::Misuse { what: "a catalog that was closed".into() };
        self.database.as_ref().ok_or_else(lost)
    }

    fn failed(&self) -> impl Fn(rusqlite::Error) -> Error + '_ {
        |source| {
            self.broken.store(true, Ordering::Relaxed);
            Error::Catalog { path: self.path.clone(), source }
        }
    }

    /// Writes what is known of a workload; where its line ends stays as it is.
    pub(crate) fn put(&self, one: &Workload) -> Result<()> {
        let started_at = one.started_at.map(|at| at.to_rfc3339());
        self.database()?
            .execute(
                "INSERT INTO workloads (name, definition, state, restarts, restores, exit_code,
                 started_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (name) DO UPDATE SET
                 definition = ?2, state = ?3, restarts = ?4, restores = ?5, exit_code = ?6,
                 started_at = ?7",
                params![
                    one.name,
                    one.definition,
                    one.state,
                    one.restarts.cast_signed(),
                    one.restores.cast_signed(),
                    one.exit_code,
                    started_at
                ],
            )
            .map(drop)
            .map_err(self.failed())
    }

    /// What is known of a workload.
    pub(crate) fn workload(&self, name: &str) -> Result<Option<Workload>> {
        let sql = "SELECT definition, state, restarts, restores, exit_code, started_at
                   FROM workloads WHERE name = ?1";
        let read = |row: &rusqlite::Row<'_>| {
            let started_at: Option<String> = row.get(5)?;
            Ok(Workload {
                name: name.to_owned(),
                definition: row.get(0)?,
                state: row.get(1)?,
                restarts: row.get::<_, i64>(2)?.cast_unsigned(),
                restores: row.get::<_, i64>(3)?.cast_unsigned(),
                exit_code: row.get(4)?,
                started_at: started_at.and_then(|text| parse_time(&text)),
            })
        };
        self.database()?.query_row(sql, [name], read).optional().map_err(self.failed())
    }

    /// Names of all workloads, sorted.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let sql = "SELECT name FROM workloads ORDER BY name";
        let mut rows = self.database()?.prepare(sql).map_err(self.failed())?;
        let names = rows.query_map([], |row| row.get(0)).map_err(self.failed())?;
        names.collect::<Result<_, _>>().map_err(self.failed())
    }

    /// Says from which snapshot the current line goes on; from none after a fresh start. What was
    /// taken until now, and is not before it, is on another line.
    pub(crate) fn set_head(&self, name: &str, head: Option<u64>) -> Result<()> {
        let after = self.store.numbers(name)?.last().copied().unwrap_or(0);
        let sql = "INSERT INTO heads (workload, seq, after) VALUES (?1, ?2, ?3)
                   ON CONFLICT (workload) DO UPDATE SET seq = ?2, after = ?3";
        let values = params![name, head.map(u64::cast_signed), after.cast_signed()];
        self.database()?.execute(sql, values).map(drop).map_err(self.failed())
    }

    /// The current line: that of the newest snapshot since it was set to go on from somewhere, or
    /// what led to there. Where nothing was set, the newest snapshot's.
    pub(crate) fn current_line(&self, name: &str) -> Result<Line> {
        let sql = "SELECT seq, after FROM heads WHERE workload = ?1";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, Option<i64>>(0)?, row.get(1)?));
        let row: Option<(Option<i64>, i64)> =
            self.database()?.query_row(sql, [name], read).optional().map_err(self.failed())?;
        let (head, after) = row.unwrap_or_default();
        let (head, after) = (head.map(i64::cast_unsigned), after.cast_unsigned());
        let mut all = self.snapshots(name)?;
        all.retain(|one| one.line.newest().is_some()); // Who does not read has none.
        let since = all.iter().rev().find(|one| one.seq > after);
        let before = |head: u64| {
            let holds = all.iter().find(|one| one.seq >= head && one.line.contains(head));
            holds.map(|one| one.line.up_to(head))
        };
        let line = since.map(|one| one.line.clone()).or_else(|| before(head?));
        Ok(line.unwrap_or_default())
    }

    /// Restorable snapshots of the current line, oldest first.
    pub(crate) fn restorable(&self, name: &str) -> Result<Vec<u64>> {
        let line = self.current_line(name)?;
        let all = self.snapshots(name)?;
        let on_it = |one: &&Snapshot| one.restorable() && line.contains(one.seq);
        Ok(all.iter().filter(on_it).map(|one| one.seq).collect())
    }

    /// Forgets a workload's row, facts and events.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        for table in ["events WHERE workload", "facts WHERE workload", "workloads WHERE name"] {
            let sql = format!("DELETE FROM {table} = ?1");
            self.database()?.execute(&sql, [name]).map_err(self.failed())?;
        }
        Ok(())
    }

    /// A small fact.
    pub(crate) fn fact(&self, workload: &str, key: &str) -> Result<Option<String>> {
        let sql = "SELECT value FROM facts WHERE workload = ?1 AND key = ?2";
        let row = self.database()?.query_row(sql, [workload, key], |row| row.get(0));
        row.optional().map_err(self.failed())
    }

    /// Keeps one; `None` removes it.
    pub(crate) fn set_fact(&self, workload: &str, key: &str, value: Option<&str>) -> Result<()> {
        let done = match value {
            Some(value) => self.database()?.execute(
                "INSERT INTO facts (workload, key, value) VALUES (?1, ?2, ?3)
                 ON CONFLICT (workload, key) DO UPDATE SET value = ?3",
                [workload, key, value],
            ),
            None => self
                .database()?
                .execute("DELETE FROM facts WHERE workload = ?1 AND key = ?2", [workload, key]),
        };
        done.map(drop).map_err(self.failed())
    }

    /// Adds an event, and says its number.
    pub(crate) fn happened(&self, event: &Event) -> Result<i64> {
        let seq = event.seq.map(u64::cast_signed);
        let at = event.at.to_rfc3339();
        let kind = event.kind.as_str();
        let sql = "INSERT INTO events (at, workload, kind, seq, reason, detail)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let values = params![at, event.workload, kind, seq, event.reason, event.detail];
        self.database()?.execute(sql, values).map_err(self.failed())?;
        Ok(self.database()?.last_insert_rowid())
    }

    /// Removes all but the newest events.
    pub(crate) fn trim_events(&self, name: &str, keep: u64) -> Result<()> {
        let sql = "DELETE FROM events WHERE workload = ?1 AND id <= (SELECT id FROM events
                   WHERE workload = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)";
        let values = params![name, keep.cast_signed()];
        self.database()?.execute(sql, values).map(drop).map_err(self.failed())
    }

    /// Events of a workload, or of all, with numbers above `after`, oldest first.
    pub(crate) fn events(&self, name: Option<&str>, after: i64) -> Result<Vec<(i64, Event)>> {
        let sql = "SELECT id, at, workload, kind, seq, reason, detail FROM events
                   WHERE id > ?1 AND (?2 IS NULL OR workload = ?2) ORDER BY id";
        let mut rows = self.database()?.prepare(sql).map_err(self.failed())?;
        let found = rows.query_map(params![after, name], |row| {
            let (at, kind): (String, String) = (row.get(1)?, row.get(3)?);
            let seq: Option<i64> = row.get(4)?;
            // Only we write here: what does not parse is a newer program's, and not ours to show.
            let event = parse_time(&at).zip(kind.parse().ok()).map(|(at, kind)| (at, kind, seq));
            let (workload, reason, detail) = (row.get(2)?, row.get(5)?, row.get(6)?);
            Ok(event
                .map(|(at, kind, seq)| {
                    let seq = seq.map(i64::cast_unsigned);
                    Event { at, workload, kind, seq, reason, detail }
                })
                .map(|event| (row.get(0), event)))
        });
        let found: Result<Vec<_>, _> = found.map_err(self.failed())?.collect();
        let numbered = found.map_err(self.failed())?.into_iter().flatten();
        numbered.map(|(id, event)| Ok((id.map_err(self.failed())?, event))).collect()
    }

    /// All snapshots of a workload, oldest first. One whose manifest does not read is there, damaged.
    pub(crate) fn snapshots(&self, name: &str) -> Result<Vec<Snapshot>> {
        let mut all = Vec::new();
        for seq in self.store.numbers(name)? {
            match self.store.snapshot(name, seq) {
                Ok(mut snapshot) => {
                    snapshot.state = self.state(name, seq)?.unwrap_or(SnapshotState::Complete);
                    all.push(snapshot);
                }
                Err(error) if error.is_damage() => {
                    self.mark(name, seq, SnapshotState::Damaged, &error.to_string())?;
                    all.push(self.unreadable(name, seq, &error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// What stands for a snapshot whose manifest does not read, so that it is seen, and goes with the
    /// others of its age.
    fn unreadable(&self, name: &str, seq: u64, error: &Error) -> Snapshot {
        let written = std::fs::metadata(self.store.manifest(name, seq));
        let taken_at = written.and_then(|meta| meta.modified()).map(DateTime::<Utc>::from);
        Snapshot {
            workload: name.to_owned(),
            seq,
            id: String::new(),
            parent: None,
            line: Line::default(),
            meta: Meta::unknown(taken_at.unwrap_or_default(), error.to_string()),
            stored_bytes: 0,
            pinned: false,
            state: SnapshotState::Damaged,
        }
    }

    /// Remembers what was found out about a snapshot.
    pub(crate) fn mark(
        &self,
        name: &str,
        seq: u64,
        state: SnapshotState,
        reason: &str,
    ) -> Result<()> {
        let sql = "INSERT INTO snapshots (workload, seq, state, reason) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (workload, seq) DO UPDATE SET state = ?3, reason = ?4";
        let values = params![name, seq.cast_signed(), state.as_str(), reason];
        self.database()?.execute(sql, values).map(drop).map_err(self.failed())
    }

    fn state(&self, name: &str, seq: u64) -> Result<Option<SnapshotState>> {
        let sql = "SELECT state FROM snapshots WHERE workload = ?1 AND seq = ?2";
        let values = params![name, seq.cast_signed()];
        let word = self.database()?.query_row(sql, values, |row| row.get::<_, String>(0));
        Ok(word.optional().map_err(self.failed())?.and_then(|word| word.parse().ok()))
    }
}

impl Drop for Catalog {
    fn drop(&mut self) {
        if let Some(database) = self.database.take()
            && !self.broken.load(Ordering::Relaxed)
        {
            let mut waiting = self.store.waiting().lock().unwrap_or_else(PoisonError::into_inner);
            *waiting = Some((self.inode, database));
        }
    }
}

fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|at| at.with_timezone(&Utc))
}

fn private(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, mode).map_err(crate::error::io_error("chmod", path))
}
