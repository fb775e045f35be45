//! Between the engine's images and the store: the operations, composed of a session's steps.
//!
//! A checkpoint: files are read ahead, the tree stands still, the shim settles the streams, the
//! inventory is taken, memory is captured, what changed of the files is read again, the tree runs
//! on, all is written, and the store commits. With `stop` it is written and committed first and only
//! then killed: only a tree that never ran on may be. A restore: everything is checked, then files
//! are put back, then processes.
mod direct;
mod image;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use chrono::Utc;
use engine::external::External;
use engine::files::{Capture, Files, RollBack, Selection, of_inventory, of_running, roll_back};
use engine::image::ImageSource;
use engine::inventory::{Inventory, Pid};
use engine::restore::{Options, Parentage, prepare};
use engine::session::{self, Frozen};
use policies::retention::{self, Candidate, Rules};
use prost::Message;
use store::{Meta, NewSnapshot, Snapshot, Store, Tracker, Trigger};

pub(crate) use self::direct::no_image;
pub use self::direct::{Dump, Undump, check_target, dump, undump, wait_for};
use self::image::{Sink, Source};
use crate::definition::Definition;
use crate::error::{Error, Result, cannot};
use crate::home::Home;
use crate::wire::{Bring, Brought, Obstacle, Settled, Take, Taken};

/// How many events of a workload are kept.
const EVENTS: u64 = 10_000;

/// What a snapshot carries beside the engine's records.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Kept {
    /// What the workload is.
    #[prost(message, required, tag = "1")]
    pub definition: Definition,
    /// Where log and input stood.
    #[prost(message, optional, tag = "2")]
    pub settled: Option<Settled>,
}

/// How to take a snapshot, whoever asks.
struct Plan<'a> {
    store: &'a Store,
    workload: &'a str,
    parent: Option<u64>,
    roots: &'a [Pid],
    selection: Selection,
    keep_files: bool,
    deadline: Duration,
    trigger: Trigger,
    tags: Vec<String>,
    stop: bool,
    close_tcp: bool,
}

/// Takes a snapshot of the tree under `roots`. `settle` is called while it stands still.
pub fn checkpoint(
    home: &Home,
    take: &Take,
    roots: &[Pid],
    externals: Vec<External>,
    settle: &mut dyn FnMut() -> Result<Settled>,
) -> Result<Taken> {
    let what = &take.definition;
    let store = Store::create(home.dir(), store::Options::default())?;
    let path = |bytes: &Vec<u8>| PathBuf::from(OsStr::from_bytes(bytes));
    let plan = Plan {
        store: &store,
        workload: &what.name,
        parent: store.line(&what.name)?.newest().filter(|seq| store.read(&what.name, *seq).is_ok()),
        roots,
        selection: Selection {
            tracked: what.track.iter().chain(what.written_handed()).map(path).collect(),
            spared: vec![home.dir().to_owned()],
        },
        keep_files: what.keep_files,
        deadline: Duration::from_millis(what.freeze_timeout_ms),
        trigger: take.trigger.parse().unwrap_or(Trigger::Request),
        tags: take.tags.clone(),
        stop: take.stop,
        close_tcp: what.close_tcp,
    };
    perform(&plan, externals, &mut |sink: &mut Sink| {
        let settled = settle()?;
        let kept = Kept { definition: what.clone(), settled: Some(settled) };
        sink.definition(&kept.encode_to_vec());
        Ok(Some(settled))
    })
}

fn perform(
    plan: &Plan<'_>,
    externals: Vec<External>,
    while_frozen: &mut dyn FnMut(&mut Sink) -> Result<Option<Settled>>,
) -> Result<Taken> {
    let began = now();
    let previous = previous_files(plan);
    let (workload, parent) = (plan.workload.to_owned(), plan.parent);
    let mut sink = Sink::new(plan.store.begin(NewSnapshot { workload, parent })?);
    let mut capture = Capture::new(&plan.selection, &previous);
    if !plan.keep_files {
        capture.read_ahead(&of_running(plan.roots), &mut sink)?;
    }
    let taken_at = Utc::now();
    let frozen = Frozen::freeze(plan.roots, plan.deadline)?;
    let settled = while_frozen(&mut sink)?;
    let options = session::Options { externals, close_tcp: plan.close_tcp };
    let mut inventoried = frozen.inventory(&options)?;
    if !inventoried.obstacles().is_empty() {
        // Refused, before any more is read.
        return Err(inventoried
            .capture()
            .err()
            .unwrap_or(engine::error::Error::Refused(vec![]))
            .into());
    }
    let inventory = inventoried.inventory();
    let (processes, threads) = count(inventory);
    let open = of_inventory(inventory);
    let mut notes = Vec::new();
    if !plan.keep_files {
        let files = capture.finish(&open, &mut sink)?;
        notes.clone_from(&files.notes);
        inventoried.add(files.files, files.notes);
    }
    let captured = inventoried.capture()?;
    notes.extend(captured.inventory().notes.iter().map(|note| note.text.clone()));
    notes.dedup();
    let mut meta = Meta {
        taken_at,
        trigger: plan.trigger,
        pause_ms: 0.0,
        took_ms: 0.0,
        processes,
        threads,
        memory_bytes: 0,
        changed_bytes: 0,
        tracker: Tracker::Full,
        tags: plan.tags.clone(),
        notes,
    };
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
    let seq = if plan.stop {
        let written = captured.write(&mut sink)?;
        (meta.memory_bytes, meta.changed_bytes) = (sink.space_bytes(), sink.space_bytes());
        let sealed = sink.into_writer()?.seal()?;
        (meta.pause_ms, meta.took_ms) = (ms(began.elapsed()), ms(began.elapsed()));
        let snapshot = sealed.commit(meta.clone())?;
        written.kill()?;
        snapshot.seq
    } else {
        let written = captured.write(&mut sink)?.thaw()?;
        (meta.memory_bytes, meta.changed_bytes) = (sink.space_bytes(), sink.space_bytes());
        meta.pause_ms = ms(written.pause());
        let sealed = sink.into_writer()?.seal()?;
        meta.took_ms = ms(began.elapsed());
        sealed.commit(meta.clone())?.seq
    };
    Ok(Taken { seq, pause_ms: meta.pause_ms, took_ms: meta.took_ms, settled })
}

fn count(inventory: &Inventory) -> (u64, u64) {
    let processes = inventory.processes.len();
    let threads: usize = inventory.processes.values().map(|process| process.threads.len()).sum();
    (processes as u64, threads as u64)
}

/// The parent's record of files, against which the new one is stored.
fn previous_files(plan: &Plan<'_>) -> Files {
    let reader = plan.parent.and_then(|seq| plan.store.read(plan.workload, seq).ok());
    let inventory = reader.and_then(|reader| Source(reader).inventory().ok());
    inventory.map(|inventory| inventory.files).unwrap_or_default()
}

/// Brings the workload of a snapshot back, as children of our parent.
pub fn restore(home: &Home, bring: &Bring, externals: Vec<External>) -> Result<Brought> {
    let store = Store::open(home.dir(), store::Options::default())?;
    let source = Source(store.read(&bring.name, bring.seq)?);
    let options = Options {
        parentage: Parentage::Sibling,
        continue_clocks: true,
        accept_changed: bring.accept_changed,
        close_tcp: bring.close_tcp,
        externals,
        terminal: None,
    };
    let held = bring.held.iter().map(|path| PathBuf::from(OsStr::from_bytes(path)));
    let how = RollBack {
        undone: home.dir().join("undone").join(&bring.as_name).join(time_name()),
        held: held.collect(),
        spared: vec![home.dir().to_owned()],
    };
    let (restored, mut notes) =
        bring_back(&source, &options, (!bring.keep_files).then_some(&how), false)?;
    notes.extend(restored.notes);
    let first = restored.roots.iter().map(|pid| pid.0).min().unwrap_or(0);
    Ok(Brought { first, notes })
}

/// Checks, puts files back, puts processes back.
fn bring_back(
    source: &Source,
    options: &Options,
    files: Option<&RollBack>,
    verify: bool,
) -> Result<(engine::restore::Restored, Vec<String>)> {
    let inventory = source.inventory().map_err(engine::error::Error::Image)?;
    let mut notes = Vec::new();
    // A file that is rolled back is not the one that the image knows until it is: only then is
    // everything checked.
    if let Some(how) = files {
        let summary = roll_back(&inventory.files, source, how)?;
        let held = summary.held.iter();
        notes.extend(
            held.map(|path| format!("{} is written by others: left alone", path.display())),
        );
        let kept = summary.undone.iter();
        notes.extend(kept.map(|path| format!("what was undone is kept in {}", path.display())));
    }
    prepare(&inventory, options)?;
    let restore = if verify { engine::restore::restore_verified } else { engine::restore::restore };
    Ok((restore(source, options)?, notes))
}

/// Says what is in the way of a snapshot.
pub fn inspect(
    roots: &[Pid],
    externals: Vec<External>,
    deadline: Duration,
) -> Result<Vec<Obstacle>> {
    let options = session::Options { externals, close_tcp: false };
    let inventoried = Frozen::freeze(roots, deadline)?.inventory(&options)?;
    Ok(inventoried.obstacles().iter().map(Obstacle::of).collect())
}

/// Where log and input stood at a snapshot.
pub fn settled_at(home: &Home, name: &str, seq: u64) -> Result<Settled> {
    Ok(kept(home, name, seq)?.settled.unwrap_or_default())
}

/// What a snapshot says of its workload.
pub fn kept(home: &Home, name: &str, seq: u64) -> Result<Kept> {
    let store = Store::open(home.dir(), store::Options::default())?;
    let reader = store.read(name, seq)?;
    Kept::decode(reader.definition())
        .map_err(|_| Error::Damaged(format!("the definition in snapshot {name}@{seq}")))
}

/// The files of a snapshot that somebody else is writing. To be called on the host; `ours` are
/// those who do not count.
pub fn held_by_others(
    home: &Home,
    name: &str,
    seq: u64,
    ours: &BTreeSet<i32>,
) -> Result<Vec<PathBuf>> {
    let store = Store::open(home.dir(), store::Options::default())?;
    let inventory = Source(store.read(name, seq)?).inventory();
    let inventory = inventory.map_err(engine::error::Error::Image)?;
    Ok(engine::files::outside_writers(&inventory.files, ours).into_keys().collect())
}

/// Removes what no rule keeps; says which, and up to where the input will not be asked for again.
pub fn retain(home: &Home, name: &str, keep_last: u64) -> Result<(Vec<u64>, u64)> {
    let store = Store::open(home.dir(), store::Options::default())?;
    let mut all = store.snapshots(Some(name))?;
    all.reverse();
    let line = store.restorable(name)?;
    let candidate = |one: &Snapshot| Candidate {
        seq: one.seq,
        pinned: one.pinned,
        restorable: one.restorable(),
        current: line.contains(&one.seq),
    };
    let candidates: Vec<_> = all.iter().map(candidate).collect();
    let rules = Rules { keep_last: Some(keep_last), in_use: true };
    let judged = retention::judge(&candidates, rules);
    let gone: Vec<u64> =
        judged.iter().filter(|(_, verdict)| !verdict.keeps()).map(|(seq, _)| *seq).collect();
    if !gone.is_empty() {
        store.forget(name, &gone)?;
        store.trim_events(name, EVENTS)?;
    }
    let oldest = all.iter().rev().find(|one| !gone.contains(&one.seq));
    let input = oldest.and_then(|one| settled_at(home, name, one.seq).ok());
    Ok((gone, input.map_or(0, |settled| settled.input)))
}

/// Frees what no snapshot needs any more; `false`: somebody is at the store, later then.
pub fn free_space(home: &Home) -> Result<bool> {
    let store = Store::open(home.dir(), store::Options::default())?;
    Ok(store.prune()?.is_some())
}

/// Gives the copy of a workload the input that its snapshots may ask for.
pub fn copy_input(home: &Home, from: &str, to: &str) -> Result<()> {
    for suffix in ["input", "input-end"] {
        let (from, to) = (home.logs(from, suffix), home.logs(to, suffix));
        if from.exists() {
            std::fs::copy(&from, &to).map_err(cannot("copy the input"))?;
        }
    }
    Ok(())
}

/// Reads all of a snapshot, so that damage is found before anything is given up for it.
pub fn verify(home: &Home, name: &str, seq: u64) -> Result<()> {
    let store = Store::open(home.dir(), store::Options::default())?;
    Ok(store.read(name, seq)?.verify()?)
}

fn time_name() -> String {
    Utc::now().format("%Y%m%dT%H%M%S%.3fZ").to_string()
}

#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}
