//! Starting afresh: for the first time, or because no snapshot is left to go back to.
//!
//! In the latter case the run of before came to nothing, and its files go where a roll back would
//! bring them as far as that is known: what it has made goes away, what it appended to its standard
//! streams is cut off. As always, nothing is lost: it is kept in `DIR/undone`.
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use super::link::GoingOn;
use super::shell::Shell;
use super::standard;
use super::terminal::Terminal;
use crate::bridge;
use crate::definition::Handed;
use crate::error::{Error, Result, cannot};
use crate::machine::Kind;
use crate::spool::Spool;

impl Shell {
    pub(super) fn start_fresh(&mut self, undo: bool) -> Result<()> {
        drop(self.terminal.as_mut().map(Terminal::give_back));
        let streams = standard::of(&self.charge.definition, &self.held)?;
        if undo {
            self.undo_all(&streams)?;
            self.say_what_input_is_gone();
        } else {
            self.remember_names()?;
        }
        self.book.rewind(&self.charge.definition.name, None)?;
        self.make_shim(GoingOn { from: None, input_again: undo }, &streams)?;
        self.restoring = false;
        self.link.as_ref().ok_or(Error::Lost("shim"))?.start()
    }

    /// As long as snapshots are kept, input before the oldest of them is not.
    fn say_what_input_is_gone(&mut self) {
        let path = self.charge.home.logs(&self.charge.definition.name, "input");
        let end = path.with_extension("input-end");
        let spool = path.exists().then(|| Spool::open(&path, &end, false).ok()).flatten();
        if let Some(gone) = spool.map(|spool| spool.start()).filter(|start| *start > 0) {
            let note = format!("the first {gone} bytes of its input are not kept any more");
            self.record(Kind::Note, None, &note);
        }
    }

    fn tracked(&self) -> Vec<PathBuf> {
        let tracked = self.charge.definition.track.iter();
        tracked.map(|path| PathBuf::from(OsStr::from_bytes(path))).collect()
    }

    /// `DIR/logs/NAME.names`: what lay in tracked trees before the program began, each name with a
    /// zero byte behind it.
    fn remember_names(&self) -> Result<()> {
        let path = self.charge.home.logs(&self.charge.definition.name, "names");
        let tracked = self.tracked();
        if tracked.is_empty() {
            let _ = fs::remove_file(path);
            return Ok(());
        }
        let names = engine::files::names(&tracked, &[self.charge.home.dir().to_owned()])?;
        let bytes: Vec<u8> = names
            .into_iter()
            .flat_map(|name| [name.into_os_string().into_vec(), vec![0]].concat())
            .collect();
        fs::write(path, bytes).map_err(cannot("remember the tracked names"))
    }

    fn remembered_names(&self) -> BTreeSet<PathBuf> {
        let path = self.charge.home.logs(&self.charge.definition.name, "names");
        let bytes = fs::read(path).unwrap_or_default();
        let names = bytes.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        names.map(|name| PathBuf::from(OsStr::from_bytes(name))).collect()
    }

    /// Only what some snapshot of this run speaks of: without one nothing is known of its files.
    fn undo_all(&mut self, streams: &[OwnedFd]) -> Result<()> {
        let definition = &self.charge.definition;
        let since = UNIX_EPOCH + Duration::from_millis(self.entry.begun_at_ms);
        let all = self.book.store().snapshots(Some(&definition.name))?;
        let of_this_run =
            |one: &&store::Snapshot| std::time::SystemTime::from(one.meta.taken_at) >= since;
        let Some(newest) = all.iter().rev().find(of_this_run).map(|one| one.seq) else {
            return Ok(());
        };
        if definition.keep_files {
            return Ok(());
        }
        for (file, fd) in definition
            .handed
            .iter()
            .filter_map(|one| Some((one, streams.get(usize::try_from(one.number).ok()?)?)))
        {
            cut_off(file, fd)?;
        }
        let held = if definition.force_rollback {
            Vec::new()
        } else {
            self.others_write(&definition.name, newest)?
        };
        let known = self.remembered_names();
        let notes =
            bridge::undo_all(&self.charge.home, &definition.name, newest, since, &known, held)?;
        notes.iter().for_each(|note| self.record(Kind::Note, None, note));
        Ok(())
    }
}

/// What the workload has appended goes, and the stream stands where it stood.
fn cut_off(file: &Handed, fd: &OwnedFd) -> Result<()> {
    let say = "take back what was written to a standard stream";
    let mut stream = fd.try_clone().map(File::from).map_err(cannot(say))?;
    let len = stream.metadata().map_err(cannot(say))?.len();
    if file.is_written() && len > file.size {
        stream.set_len(file.size).map_err(cannot(say))?;
    }
    stream.seek(SeekFrom::Start(file.position)).map(drop).map_err(cannot(say))
}
