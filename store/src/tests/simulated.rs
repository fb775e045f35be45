//! A disk that dies, fails or loses power at any chosen step.
//!
//! It works on real files: before each step it notes what a power cut could undo, and keeps the old
//! bytes behind hard links. What was not synced is then cut short, and names in directories that
//! were not synced go back, the last first.
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;

use super::noise;
use crate::{Options, Result, Store, Watch};

/// What happens at the chosen step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing ever: all steps are counted.
    Never,
    /// The process is killed: no later step is taken either.
    Killed,
    /// The machine loses power; the number decides what was written back by then.
    PowerCut(u64),
    /// The step fails, and those after it do not.
    Error(Errno),
    /// From there on nothing can be created or written.
    Full,
}

#[derive(Debug)]
enum Undo {
    Create(PathBuf),
    /// From, to, and what was there.
    Rename(PathBuf, PathBuf, Option<PathBuf>),
    Remove(PathBuf, PathBuf),
    Directory(PathBuf),
}

#[derive(Debug, Default)]
struct State {
    steps: usize,
    /// Names that could go back, by directory.
    names: BTreeMap<PathBuf, Vec<Undo>>,
    /// Whether a file's bytes are durable.
    synced: BTreeMap<PathBuf, bool>,
    kept: usize,
}

pub(super) struct Disk {
    pub(super) dir: PathBuf,
    shadow: PathBuf,
    end: End,
    at: usize,
    state: Mutex<State>,
}

impl Disk {
    pub(super) fn new(root: &Path, end: End, at: usize) -> Arc<Self> {
        let shadow = root.join("shadow");
        fs::create_dir(&shadow).unwrap();
        Arc::new(Self { dir: root.join("store"), shadow, end, at, state: Mutex::default() })
    }

    pub(super) fn store(self: &Arc<Self>) -> Result<Store> {
        let disk = Arc::clone(self);
        let watch: Watch = Arc::new(move |name, path| disk.step(name, path));
        Store::watched(&self.dir, Options::default(), watch)
    }

    pub(super) fn steps(&self) -> usize {
        self.state.lock().unwrap().steps
    }

    fn step(&self, name: &'static str, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.steps += 1;
        let (now, past) = (state.steps == self.at, state.steps >= self.at);
        let grows = ["store:create", "store:write", "store:make-directory"].contains(&name);
        match self.end {
            End::Killed | End::PowerCut(_) if past => return Err(io::Error::other("dead")),
            End::Error(errno) if now => return Err(errno.into()),
            End::Full if past && grows => return Err(Errno::ENOSPC.into()),
            _ => {}
        }
        self.note(&mut state, name, path);
        Ok(())
    }

    fn keep(&self, state: &mut State, path: &Path) -> Option<PathBuf> {
        state.kept += 1;
        let kept = self.shadow.join(state.kept.to_string());
        fs::hard_link(path, &kept).ok().map(|()| kept)
    }

    fn note(&self, state: &mut State, name: &'static str, path: &Path) {
        let above = path.parent().unwrap().to_owned();
        let undo = match name {
            "store:create" => {
                state.synced.insert(path.to_owned(), false);
                (!path.exists()).then(|| Undo::Create(path.to_owned()))
            }
            "store:make-directory" => Some(Undo::Directory(path.to_owned())),
            "store:rename" => {
                let draft = path.with_extension("tmp");
                let from = if draft.exists() { draft } else { path.with_extension("manifest") };
                let before = self.keep(state, path);
                let synced = state.synced.remove(&from).unwrap_or(true);
                state.synced.insert(path.to_owned(), synced);
                Some(Undo::Rename(from, path.to_owned(), before))
            }
            "store:remove" => {
                let kept = self.keep(state, path);
                kept.map(|kept| Undo::Remove(path.to_owned(), kept))
            }
            "store:write" | "store:sync" => {
                state.synced.insert(path.to_owned(), name == "store:sync");
                None
            }
            "store:sync-directory" => {
                state.names.remove(path);
                None
            }
            other => panic!("what is {other}?"),
        };
        state.names.entry(above).or_default().extend(undo);
    }

    /// What is left when the power comes back.
    pub(super) fn lose_power(&self) {
        let End::PowerCut(seed) = self.end else { return };
        let mut state = self.state.lock().unwrap();
        let mut chance = noise(4096, seed + 1).into_iter().map(usize::from);
        for (path, _) in state.synced.iter().filter(|(path, synced)| !**synced && path.exists()) {
            let len = fs::metadata(path).unwrap().len();
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            let left = len * chance.next().unwrap() as u64 / 255;
            file.set_len(left).unwrap();
            if chance.next().unwrap() % 2 == 0 {
                file.set_len(len).unwrap(); // A length without its bytes.
            }
        }
        for undos in std::mem::take(&mut state.names).into_values() {
            let lost = undos.len() * chance.next().unwrap() / 255;
            undos.into_iter().rev().take(lost).for_each(undo);
        }
    }
}

/// What lies in a directory that is gone is gone too.
fn undo(one: Undo) {
    match one {
        Undo::Create(path) => drop(fs::remove_file(path)),
        Undo::Directory(path) => drop(fs::remove_dir_all(path)),
        Undo::Rename(from, to, before) => {
            drop(fs::rename(&to, from));
            before.into_iter().for_each(|before| drop(fs::rename(before, &to)));
        }
        Undo::Remove(path, kept) => drop(fs::rename(kept, path)),
    }
}
