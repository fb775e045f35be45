//! Taking a snapshot, whoever asks.
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use engine::external::External;
use engine::family;
use engine::files::{Capture, Files, Selection, Twins, of_running};
use engine::inventory::{Inventory, Life, Pid};
use engine::session::{
    self, Captured, Familiar, Foresight, Frozen, Inventoried, Kind, Options, Told,
    Tracker as Tracking,
};
use prost::Message;
use store::{Compression, Meta, NewSnapshot, Sealed, Snapshot, Store, Tracker, Trigger};

use super::Kept;
use super::image::{Sink, inventory};
use super::progress::Tell;
use crate::definition::Definition;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::wire::{Settled, Take, Taken};

/// How to take a snapshot, whoever asks.
pub(super) struct Plan<'a> {
    pub(super) store: &'a Store,
    pub(super) workload: &'a str,
    pub(super) parent: Option<u64>,
    pub(super) compression: Compression,
    pub(super) roots: &'a [Pid],
    pub(super) selection: Selection,
    pub(super) keep_files: bool,
    pub(super) deadline: Duration,
    pub(super) trigger: Trigger,
    pub(super) tags: Vec<String>,
    pub(super) stop: bool,
    pub(super) close_tcp: bool,
    pub(super) private: bool,
}

/// What whoever takes a snapshot has to go by.
#[derive(Debug)]
pub struct Given<'a> {
    /// The first processes of the tree.
    pub roots: &'a [Pid],
    /// What is held outside it.
    pub externals: &'a [External],
    /// `None`: nobody would keep who watches over its memory.
    pub watching: Option<Watch>,
}

/// Who watches over the memory of a tree.
#[derive(Debug, Default)]
pub struct Watch {
    /// Since this snapshot.
    pub seq: u64,
    /// Each over one space.
    pub trackers: Vec<Tracking>,
}

/// The standard streams of a tree, which are held outside it.
pub trait Streams {
    /// Has them settled; who does that need not be waited for.
    fn settle(&mut self) -> Result<()>;
    /// Where log and input stand, once they are.
    fn settled(&mut self) -> Result<Settled>;
}

/// What else happens while a tree stands still.
pub(super) trait Meanwhile {
    /// At the beginning.
    fn begin(&mut self) -> Result<()>;
    /// Once all is known of the tree.
    fn end(&mut self, sink: &mut Sink<'_>) -> Result<Option<Settled>>;
}

/// A workload's streams are settled, and its definition goes into the snapshot.
struct OfWorkload<'a> {
    streams: &'a mut dyn Streams,
    definition: &'a Definition,
}

impl Meanwhile for OfWorkload<'_> {
    fn begin(&mut self) -> Result<()> {
        self.streams.settle()
    }

    fn end(&mut self, sink: &mut Sink<'_>) -> Result<Option<Settled>> {
        let settled = Some(self.streams.settled()?);
        sink.definition(&Kept { definition: self.definition.clone(), settled }.encode_to_vec());
        Ok(settled)
    }
}

/// Takes a snapshot of a tree. Who watches from then on comes with it, if it runs on.
pub fn checkpoint(
    home: &Home,
    take: &Take,
    Given { roots, externals, watching }: Given<'_>,
    streams: &mut dyn Streams,
    tell: Tell<'_>,
) -> Result<(Taken, Option<Watch>)> {
    let what = &take.definition;
    let store = Store::watched(home.dir(), store::Options::default(), watch())?;
    let path = |bytes: &Vec<u8>| PathBuf::from(OsStr::from_bytes(bytes));
    let plan = Plan {
        store: &store,
        workload: &what.name,
        parent: store.line(&what.name)?.newest().filter(|seq| store.read(&what.name, *seq).is_ok()),
        compression: Compression::Keeping,
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
        private: true,
    };
    let mut meanwhile = OfWorkload { streams, definition: what };
    let mut trackers = watching.map(|watch| match plan.parent {
        Some(parent) if parent == watch.seq => watch.trackers,
        _ => Vec::new(),
    });
    let taken = perform(&plan, externals, &mut trackers, &mut meanwhile, tell)?;
    let seq = taken.seq;
    Ok((taken, trackers.filter(|_| !plan.stop).map(|trackers| Watch { seq, trackers })))
}

/// Each step of the store is a point where suites can make us die.
pub(super) fn watch() -> store::Watch {
    Arc::new(|step, _| {
        engine::fault::point(step);
        Ok(())
    })
}

/// Uses up who watches, if anybody shall, and leaves who does from then on.
pub(super) fn perform(
    plan: &Plan<'_>,
    externals: &[External],
    trackers: &mut Option<Vec<Tracking>>,
    meanwhile: &mut dyn Meanwhile,
    tell: Tell<'_>,
) -> Result<Taken> {
    match take(plan, externals, trackers, true, meanwhile, tell) {
        // Rare; and what is asked in the pause cannot change.
        Err(Error::Engine(error @ engine::error::Error::Changed(_))) => {
            tracing::debug!(%error, "once more, without foresight");
            take(plan, externals, trackers, false, meanwhile, tell)
        }
        taken => taken,
    }
}

/// Whether what was looked at before the tree stands may be relied on is told by `foresee`.
fn take(
    plan: &Plan<'_>,
    externals: &[External],
    trackers: &mut Option<Vec<Tracking>>,
    foresee: bool,
    meanwhile: &mut dyn Meanwhile,
    tell: Tell<'_>,
) -> Result<Taken> {
    let began = now();
    let (before, none) = (parent_of(plan), Files::default());
    let previous = before.as_ref().map_or(&none, |image| &image.files);
    let (workload, parent) = (plan.workload.to_owned(), plan.parent);
    let new = NewSnapshot { workload, parent, compression: plan.compression };
    let mut sink = Sink::new(plan.store.begin(new)?, tell);
    sink.about(family::of(plan.roots).into_iter().map(resident).sum());
    let mut capture = Capture::new(&plan.selection, previous);
    if !plan.keep_files {
        capture.read_ahead(&of_running(plan.roots), &mut sink)?;
    }
    let pids = family::of(plan.roots);
    let familiar = familiar(plan, foresee, (&pids, externals));
    if !plan.keep_files {
        capture.foresee(familiar.files(), &mut sink)?;
    }
    // If it comes to nothing before they tell, nobody knows what they knew.
    let mut known = trackers.as_mut().map(std::mem::take);
    let watching = known.as_deref_mut().unwrap_or_default();
    let ahead = Ahead::of(plan, foresee, (&pids, familiar), (watching, before.as_ref()));
    capture.catch_up();
    let taken_at = Utc::now();
    let frozen = Frozen::freeze(plan.roots, plan.deadline)?;
    meanwhile.begin()?;
    let options = Options { externals, trackers: known.as_deref(), ..ahead.options };
    let inventoried = frozen.inventory(&options);
    drop(options); // What we hold of its open files.
    let settled = meanwhile.end(&mut sink)?;
    let mut inventoried = inventoried?;
    if !inventoried.obstacles().is_empty() {
        return Err(refused(inventoried)); // Before any more is read.
    }
    let inventory = inventoried.inventory();
    let first = settled.map(|settled| Pid(settled.first)).or(plan.roots.first().copied());
    lives(inventory, first.unwrap_or(Pid(0)))?;
    let (processes, threads) = count(inventory);
    let (mut notes, mut twins) = (Vec::new(), Twins::default());
    if !plan.keep_files {
        let open = capture.candidates(inventory, inventoried.as_before());
        let files = capture.finish(&open, &mut sink)?;
        (notes, twins) = (files.notes.clone(), files.twins);
        inventoried.add(files.files, files.notes);
    }
    let mut captured =
        if plan.stop { inventoried.capture() } else { inventoried.capture_running(ahead.room) }?;
    let mut watching = captured.trackers()?;
    let tracker = tracker_of(&watching);
    trackers.iter_mut().for_each(|known| known.append(&mut watching));
    notes.extend(captured.inventory().notes.iter().map(|note| note.text.clone()));
    notes.dedup();
    let (trigger, tags) = (plan.trigger, plan.tags.clone());
    let meta = Meta { trigger, processes, threads, tracker, tags, notes, ..Meta::at(taken_at) };
    let snapshot = if plan.stop {
        keep_and_end(captured, twins, sink, meta, began)?
    } else {
        keep(captured, twins, sink, meta, began)?
    };
    trackers.iter_mut().flatten().for_each(|one| one.told = Told::default());
    let Meta { pause_ms, took_ms, .. } = snapshot.meta;
    Ok(Taken { seq: snapshot.seq, pause_ms, took_ms, settled })
}

/// What is looked at before the tree stands.
struct Ahead {
    options: Options<'static>,
    room: Vec<u8>,
}

impl Ahead {
    fn of(
        plan: &Plan<'_>,
        foresee: bool,
        (pids, familiar): (&[Pid], Familiar),
        (watching, parent): (&mut [Tracking], Option<&Inventory>),
    ) -> Self {
        let foresight = match (foresee, plan.stop) {
            (false, _) => Foresight::default(),
            (true, true) => Foresight::of_most(pids),
            (true, false) => Foresight::of(pids, watching, parent),
        };
        let room = if plan.stop { Vec::new() } else { session::room(pids, &foresight) };
        let Plan { close_tcp, private, .. } = *plan;
        let runs_on = !plan.stop;
        let looked = Options { foresight, familiar, ..Options::default() };
        let options = Options { close_tcp, private, runs_on, ..looked };
        Self { options, room }
    }
}

/// What is open, if the tree shall run on.
fn familiar(plan: &Plan<'_>, foresee: bool, (pids, externals): (&[Pid], &[External])) -> Familiar {
    if !foresee || plan.stop {
        return Familiar::default();
    }
    Familiar::of(pids, externals)
}

fn refused(inventoried: Inventoried) -> Error {
    inventoried.capture().err().unwrap_or(engine::error::Error::Refused(Vec::new())).into()
}

/// What a snapshot says of who watches.
fn tracker_of(watching: &[Tracking]) -> Tracker {
    match watching.first().map(|one| one.kind) {
        None => Tracker::Full,
        Some(Kind::SoftDirty) => Tracker::SoftDirty,
        Some(Kind::WriteProtect) => Tracker::WriteProtect,
    }
}

/// Writes and commits; the tree runs on as soon as it may.
fn keep(
    captured: Captured,
    twins: Twins,
    mut sink: Sink<'_>,
    mut meta: Meta,
    began: Instant,
) -> Result<Snapshot> {
    let written = captured.write_running(&mut sink)?;
    meta.pause_ms = ms(written.pause());
    twins.write(&mut sink)?;
    let sealed = seal(sink, &mut meta)?;
    meta.took_ms = ms(began.elapsed());
    Ok(sealed.commit(meta)?)
}

/// What is left of a tree whose first process has died is no workload: brought back, it would be one
/// that nobody ever sees end.
pub(super) fn lives(inventory: &Inventory, first: Pid) -> Result<()> {
    match inventory.processes.get(&first).map(|process| process.life) {
        Some(Life::Running | Life::Continued | Life::Stopped { .. }) => Ok(()),
        None | Some(Life::Zombie { .. }) => Err(engine::error::Error::Died(first).into()),
    }
}

/// Likewise; the tree ends once it is safe.
fn keep_and_end(
    captured: Captured,
    twins: Twins,
    mut sink: Sink<'_>,
    mut meta: Meta,
    began: Instant,
) -> Result<Snapshot> {
    let written = captured.write(&mut sink)?;
    twins.write(&mut sink)?;
    let sealed = seal(sink, &mut meta)?;
    (meta.pause_ms, meta.took_ms) = (ms(began.elapsed()), ms(began.elapsed()));
    let snapshot = sealed.commit(meta)?;
    written.kill()?;
    Ok(snapshot)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// Makes what was written durable.
fn seal(sink: Sink<'_>, meta: &mut Meta) -> Result<Sealed> {
    (meta.memory_bytes, meta.changed_bytes) = (sink.memory_bytes(), sink.changed_bytes());
    Ok(sink.into_writer()?.seal()?)
}

fn count(inventory: &Inventory) -> (u64, u64) {
    let processes = inventory.processes.len();
    let threads: usize = inventory.processes.values().map(|process| process.threads.len()).sum();
    (processes as u64, threads as u64)
}

/// What there was when the parent was taken: the files against which those of now are stored, and areas.
fn parent_of(plan: &Plan<'_>) -> Option<Inventory> {
    let reader = plan.store.read(plan.workload, plan.parent?).ok()?;
    inventory(&reader).ok()
}

/// How much memory a process has, about: what will have to be written.
fn resident(pid: Pid) -> u64 {
    const PAGE: u64 = 4096;
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * PAGE
}

#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use engine::inventory::Process;

    use super::*;

    fn tree(life: Life) -> Inventory {
        let process = Process {
            parent: None,
            group: 2,
            session: 2,
            exit_signal: 17,
            life,
            name: "first".into(),
            table: engine::inventory::TableId(0),
            space: engine::inventory::SpaceId(0),
            fs: engine::inventory::FsId(0),
            threads: Vec::new(),
        };
        Inventory { processes: [(Pid(2), process)].into(), ..Inventory::default() }
    }

    #[test]
    fn a_tree_whose_first_process_has_died_is_no_workload() {
        assert!(lives(&tree(Life::Running), Pid(2)).is_ok());
        let stopped = Life::Stopped { signal: 19, unreported: false };
        assert!(lives(&tree(stopped), Pid(2)).is_ok());
        for (inventory, first) in [
            (tree(Life::Zombie { status: 9 }), Pid(2)),
            (tree(Life::Running), Pid(3)),
            (Inventory::default(), Pid(2)),
        ] {
            let refused = lives(&inventory, first).map_err(|error| error.to_string());
            assert_eq!(refused, Err(format!("process {first} died while it was held")));
        }
    }
}
