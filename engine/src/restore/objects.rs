//! Objects and their open files: built here or in their makers, planted, settled by a holder.
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

use super::Restorer;
use super::blanks::{Blanks, Loan, done};
use super::memory::tid;
use super::planting::Wanted;
use crate::attribute::{ATTRIBUTES, Owner};
use crate::error::{Error, Obstacle, Result};
use crate::inventory::{FsId, Inventory, ObjectId, ObjectRecord, OpenFileId, Pid, TableId};
use crate::object::{Aimed, Build, Check, KINDS, Kind, Missing, set_foreground};
use crate::plan::Stage;
use crate::remote::{Arg, Batch, Caller, Makers, RemoteFd, Reply};
use crate::restore::Options;

/// For what is there for a moment only.
const CLOEXEC: Arg = Arg::Value(libc::O_CLOEXEC as i64);

impl Restorer<'_> {
    /// Our descriptor of an open file that was built.
    pub(super) fn file(&self, id: OpenFileId) -> Result<BorrowedFd<'_>> {
        let found = self.open_files.get(&id).map(AsFd::as_fd);
        found.ok_or_else(|| Error::Record(format!("open file {id}"), None))
    }

    pub(super) fn build(&mut self, id: ObjectId, files: &[OpenFileId]) -> Result<()> {
        let inventory = self.inventory;
        let damaged = || Error::Record(format!("object {id}"), None);
        let record = inventory.objects.get(&id).ok_or_else(damaged)?;
        let kind = kind(&record.kind)?;
        let mut build = Build {
            object: id,
            makers: &mut self.blanks,
            open_files: &self.open_files,
            externals: &self.externals,
            image: self.image,
        };
        let ends = (kind.build)(&record.state, &mut build)?;
        let mut seen = BTreeMap::<_, usize>::new();
        for id in files {
            let damaged = || Error::Record(format!("open file {id}"), None);
            let file = inventory.open_files.get(id).ok_or_else(damaged)?;
            let nth = seen.entry(file.refers_to().1).or_default();
            self.open_files.insert(*id, file.build(&ends, *nth)?);
            *nth += 1;
        }
        Ok(())
    }

    pub(super) fn plant(&mut self, table: TableId, pid: Pid) -> Result<()> {
        let range = (table, RemoteFd(i32::MIN))..=(table, RemoteFd(i32::MAX));
        let descriptors = self.inventory.descriptors.range(range);
        let wanted = descriptors.map(|(&(_, at), one)| {
            Ok(Wanted { at, cloexec: one.cloexec, file: self.file(one.open_file)? })
        });
        let wanted = wanted.collect::<Result<Vec<_>>>()?;
        self.transport.plant(&mut self.blanks.caller(tid(pid))?, &wanted)
    }

    pub(super) fn settle(
        &mut self,
        object: ObjectId,
        file: OpenFileId,
        pid: Pid,
        at: Option<RemoteFd>,
    ) -> Result<()> {
        let damaged = || Error::Record(format!("object {object}"), None);
        let record = self.inventory.objects.get(&object).ok_or_else(damaged)?;
        let kind = kind(&record.kind)?;
        // Only its session may say who is in the foreground, which need not hold it.
        if let ("pty", Some(terminal)) = (record.kind.as_str(), self.open_files.get(&file)) {
            set_foreground(&record.state, terminal.as_fd(), &mut self.blanks)?;
        }
        let mut loan = self.blanks.caller(tid(pid))?;
        let lent = if at.is_none() { Some(self.lend_away(&mut loan, file, record)?) } else { None };
        let Some(at) = at.or(lent) else { return Ok(()) };
        let mut batch = Batch::default();
        if let Some(file) = self.inventory.open_files.get(&file) {
            file.settle(at, &mut batch);
        }
        (kind.settle)(&record.state, at, &mut batch)?;
        let table = self.inventory.processes.get(&pid).map(|process| process.table);
        let means = |number| Some(self.inventory.descriptors.get(&(table?, number))?.open_file);
        let aims = (kind.aim)(&record.state, at)?.into_iter();
        let (steady, moved): (Vec<_>, Vec<_>) =
            aims.partition(|aimed| means(aimed.number) == Some(aimed.file));
        batch.0.extend(steady.into_iter().flat_map(|aimed| aimed.batch.0));
        done(&loan.perform(&batch)?)?;
        for aimed in moved {
            self.aim(&mut loan, aimed, table)?;
        }
        let mut batch = Batch::default();
        if let Some(lent) = lent {
            batch.call("close", libc::SYS_close, [lent.into()]);
        }
        done(&loan.perform(&batch)?)
    }

    /// Gives what is in flight for a moment, above the numbers that it will speak of.
    fn lend_away(
        &self,
        loan: &mut Loan<'_>,
        file: OpenFileId,
        record: &ObjectRecord,
    ) -> Result<RemoteFd> {
        let lent = self.transport.give(loan, &self.files(&[file])?)?;
        let [lent] = lent[..] else { return Err(Error::Kernel("recvmsg", Errno::EBADMSG)) };
        let aims = (kind(&record.kind)?.aim)(&record.state, lent)?;
        let above = aims.iter().map(|aimed| aimed.number.0.saturating_add(1)).max().unwrap_or(0);
        let mut batch = Batch::default();
        let args = [lent.into(), libc::F_DUPFD_CLOEXEC.into(), above.into()];
        batch.call("fcntl", libc::SYS_fcntl, args);
        batch.call("close", libc::SYS_close, [lent.into()]);
        let replies = loan.perform(&batch)?;
        done(&replies)?;
        let moved = replies.first().map_or(Ok(-1), Reply::value)?;
        Ok(RemoteFd(i32::try_from(moved).unwrap_or(-1)))
    }

    /// Has a number mean another file for the length of a batch.
    fn aim(&self, loan: &mut Loan<'_>, aimed: Aimed, table: Option<TableId>) -> Result<()> {
        let number = aimed.number;
        let own = table.and_then(|table| self.inventory.descriptors.get(&(table, number)));
        let wanted: Vec<_> = [aimed.file].into_iter().chain(own.map(|own| own.open_file)).collect();
        self.transport.lend(loan, &self.files(&wanted)?, |arrived, batch| {
            let [wanted, before @ ..] = arrived else { return };
            let there = *wanted == number; // It was free, and the lowest.
            if !there {
                batch.call("dup3", libc::SYS_dup3, [(*wanted).into(), number.into(), CLOEXEC]);
            }
            batch.0.extend(aimed.batch.0);
            if let ([before], Some(own)) = (before, own) {
                let cloexec = if own.cloexec { CLOEXEC } else { 0.into() };
                batch.call("dup3", libc::SYS_dup3, [(*before).into(), number.into(), cloexec]);
            } else if !there {
                batch.call("close", libc::SYS_close, [number.into()]);
            }
        })
    }

    /// Working directory and root. The root first: it takes a privilege, and changes no directory.
    pub(super) fn directories(&mut self, id: FsId, pid: Pid) -> Result<()> {
        let damaged = || Error::Record(format!("directories {id}"), None);
        let fs = *self.inventory.filesystems.get(&id).ok_or_else(damaged)?;
        let files = self.files(&[fs.root, fs.cwd])?;
        let changed = super::differs_from_root(self.file(fs.root)?)?;
        let mut loan = self.blanks.caller(tid(pid))?;
        self.transport.lend(&mut loan, &files, |numbers, batch| {
            let [root, cwd] = numbers else { return };
            if changed {
                batch.call("fchdir", libc::SYS_fchdir, [(*root).into()]);
                let here = crate::remote::Arg::In(b".\0".to_vec());
                batch.call("chroot", libc::SYS_chroot, [here]);
            }
            batch.call("fchdir", libc::SYS_fchdir, [(*cwd).into()]);
        })
    }

    pub(super) fn attributes(&mut self, owner: Owner, stage: Stage, names: &[&str]) -> Result<()> {
        let mut batch = Batch::default();
        let mut outside = Vec::new();
        for entry in ATTRIBUTES.iter().filter(|e| e.stage == stage && names.contains(&e.name)) {
            let key = (owner, entry.name.to_owned());
            if let Some(state) = self.inventory.attributes.get(&key) {
                (entry.restore)(state, &mut batch)?;
                outside.push((entry, state));
            }
        }
        done(&self.blanks.caller(owner.tid())?.perform(&batch)?)?;
        outside.into_iter().try_for_each(|(entry, state)| (entry.restore_outside)(state, owner))
    }
}

impl Makers for Blanks {
    fn maker(&mut self, pid: Pid) -> Result<Box<dyn Caller + '_>> {
        Ok(Box::new(self.caller(tid(pid))?))
    }
}

pub(super) fn kind(name: &str) -> Result<&'static Kind> {
    let unknown = || Error::Record(name.to_owned(), None);
    KINDS.iter().find(|kind| kind.name == name).ok_or_else(unknown)
}

/// What of the image's objects is not as it was, or cannot be had here.
pub(super) fn check(inventory: &Inventory, options: &Options) -> Result<Vec<Obstacle>> {
    // What was only read is put back where it is gone, and compared where it is not.
    let entries = inventory.files.entries.iter();
    let entries = entries.filter(|entry| !entry.read_only || !entry.path().exists());
    let kept: BTreeSet<_> = entries.map(|entry| entry.path.as_slice()).collect();
    let put_back = options.files_put_back.then_some(&kept);
    let with = Check { accept_changed: options.accept_changed, put_back };
    let mut obstacles = Vec::new();
    for record in inventory.objects.values() {
        let missing = (kind(&record.kind)?.check)(&record.state, &with)?;
        let obstacle = |one: Missing| Obstacle { pid: None, object: one.object, cause: one.cause };
        obstacles.extend(missing.into_iter().map(obstacle));
    }
    Ok(obstacles)
}
