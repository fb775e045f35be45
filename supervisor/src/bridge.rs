//! Between the engine's images and the store: the operations, composed of a session's steps.
//!
//! A checkpoint: files are read ahead, the tree stands still, the shim settles the streams while the
//! inventory is taken, what changed of the files is read again, memory is captured, the tree runs
//! on, all is written, and the store commits. With `stop` it is written and committed first and only
//! then killed: only a tree that never ran on may be. A restore: everything is checked, then files
//! are put back, then processes.
mod direct;
mod image;
mod keep;
mod progress;
mod take;
mod terminal;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use chrono::Utc;
use engine::external::External;
use engine::family;
use engine::files::{RollBack, Summary, remove_born_since, roll_back, would_change};
use engine::image::ImageSource;
use engine::inventory::Pid;
use engine::restore::{Options, Parentage, prepare};
use engine::session::{self, Foresight, Frozen};
use prost::Message;
use store::Store;

pub(crate) use self::direct::no_image;
pub use self::direct::{Dump, Undump, check_target, dump, undump, wait_for};
use self::image::Source;
pub use self::keep::{free_space, retain};
pub use self::progress::Tell;
pub use self::take::{Given, Streams, Watch, checkpoint};
use crate::definition::Definition;
use crate::error::{Error, Result, cannot};
use crate::home::Home;
use crate::wire::{Bring, Brought, Obstacle, Settled};

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

/// Brings the workload of a snapshot back, as children of our parent.
pub fn restore(
    home: &Home,
    bring: &Bring,
    externals: Vec<External>,
    tell: Tell<'_>,
) -> Result<Brought> {
    let store = Store::open(home.dir(), store::Options::default())?;
    let reader = store.read(&bring.name, bring.seq)?;
    let first = kept_of(&reader)?.settled.unwrap_or_default().first;
    let source = Source::new(reader, tell);
    let inventory = source.inventory().map_err(engine::error::Error::Image)?;
    if take::lives(&inventory, Pid(first)).is_err() {
        return Err(Error::Damaged(format!(
            "{}@{}, which lacks its first process,",
            bring.name, bring.seq
        )));
    }
    let options = Options {
        parentage: Parentage::Sibling,
        continue_clocks: true,
        accept_changed: bring.accept_changed,
        files_put_back: !bring.keep_files,
        close_tcp: bring.close_tcp,
        externals,
    };
    let held = bring.held.iter().map(|path| PathBuf::from(OsStr::from_bytes(path)));
    let how = RollBack {
        undone: home.dir().join("undone").join(&bring.as_name).join(time_name()),
        held: held.collect(),
        spared: vec![home.dir().to_owned()],
    };
    let (restored, mut notes) =
        bring_back(&source, &options, (!bring.keep_files).then_some(&how), bring.verify)?;
    notes.extend(restored.notes.iter().cloned());
    Ok(Brought { first, notes })
}

/// Checks, puts files back, puts processes back.
fn bring_back(
    source: &Source<'_>,
    options: &Options,
    files: Option<&RollBack>,
    verify: bool,
) -> Result<(engine::restore::Restored, Vec<String>)> {
    let inventory = source.inventory().map_err(engine::error::Error::Image)?;
    let (mut notes, mut undone) = (Vec::new(), None);
    // Whoever is refused shall find their files as they are.
    prepare(&inventory, options)?;
    if let Some(how) = files {
        if would_change(&inventory.files, how)? {
            // Nothing is changed for a snapshot that turns out to be damaged in the middle.
            source.check()?;
        }
        let summary = roll_back(&inventory.files, source, how)?;
        notes.extend(told(&summary));
        undone = summary.undone;
    }
    let restore = if verify { engine::restore::restore_verified } else { engine::restore::restore };
    match (restore(source, options), undone) {
        (Ok(restored), _) => Ok((restored, notes)),
        (Err(cause), Some(undone)) => Err(Error::AfterRollBack { undone, cause }),
        (Err(cause), None) => Err(cause.into()),
    }
}

fn told(summary: &Summary) -> Vec<String> {
    let held = summary.held.iter();
    let held = held.map(|path| format!("{} is written by others: left alone", path.display()));
    let undone = summary.undone.iter();
    let undone = undone.map(|path| format!("what was undone is kept in {}", path.display()));
    held.chain(undone).collect()
}

/// Says what is in the way of a snapshot.
pub fn inspect(
    roots: &[Pid],
    externals: &[External],
    deadline: Duration,
    private: bool,
) -> Result<Vec<Obstacle>> {
    let foresight = Foresight::of(&family::of(roots), &mut [], None);
    let options = session::Options { externals, private, foresight, ..session::Options::default() };
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
    kept_of(&store.read(name, seq)?)
}

fn kept_of(reader: &store::Reader) -> Result<Kept> {
    let snapshot = reader.snapshot();
    let what = || format!("the definition in snapshot {}@{}", snapshot.workload, snapshot.seq);
    Kept::decode(reader.definition()).map_err(|_| Error::Damaged(what()))
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
    let inventory = image::inventory(&store.read(name, seq)?);
    let inventory = inventory.map_err(engine::error::Error::Image)?;
    Ok(engine::files::outside_writers(&inventory.files, ours).into_keys().collect())
}

/// Takes back what the run that took this snapshot has made since it began, but for what is `known`
/// to have been there and what others hold. Says what is worth knowing.
pub fn undo_all(
    home: &Home,
    name: &str,
    seq: u64,
    since: SystemTime,
    known: &BTreeSet<PathBuf>,
    held: Vec<Vec<u8>>,
) -> Result<Vec<String>> {
    let store = Store::open(home.dir(), store::Options::default())?;
    let inventory = image::inventory(&store.read(name, seq)?);
    let files = inventory.map_err(engine::error::Error::Image)?.files;
    let how = RollBack {
        undone: home.dir().join("undone").join(name).join(time_name()),
        held: held.into_iter().map(|path| PathBuf::from(OsString::from_vec(path))).collect(),
        spared: vec![home.dir().to_owned()],
    };
    let (summary, left) = remove_born_since(&files, since, known, &how)?;
    let mut notes = told(&summary);
    let handed: BTreeSet<_> =
        kept(home, name, seq)?.definition.handed.into_iter().map(|one| one.path).collect();
    let left = left.iter().filter(|path| !handed.contains(path.as_os_str().as_bytes()));
    notes.extend(left.map(|path| format!("{} was there before: left as it is", path.display())));
    Ok(notes)
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
