//! From what a frozen tree holds to objects, open files and descriptors.
//!
//! Each descriptor is duplicated, which takes less time than asking for its inode by a path; the duplicate of
//! an open file that is known already, by kcmp(2), is closed at once. So a tree of many processes that
//! inherited the same files costs one duplicate for each open file, and none outlives the collector.
//!
//! Objects are collected when all their open files are known. Collecting one can turn up more open
//! files (descriptors in flight): then there is another round.
pub(crate) mod apart;
mod attributes;
pub(crate) mod familiar;
mod objects;
mod outside;
mod ranked;
mod registry;
mod unasked;
mod unsupported;
mod watched;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use nix::libc::{F_GETFD, FD_CLOEXEC, SYS_fcntl};
use nix::sys::stat::fstat;

pub(crate) use self::attributes::{News, OfProcess, attributes};
use self::familiar::Familiar;
use self::ranked::Ranked;
use self::registry::{Found, Held, Registry, Told};
pub(crate) use self::unasked::Unasked;
use crate::attribute::posix_locks_told;
use crate::error::{Error, Obstacle, Result, kernel, kernel_io};
use crate::external::External;
use crate::files::AsBefore;
use crate::image::Bulk;
use crate::inventory::{
    Descriptor, FsId, Note, ObjectId, ObjectRecord, OpenFileId, Pid, SpaceId, TableId, Tid,
};
use crate::lock::Lock;
use crate::object::{Evidence, is_slave};
use crate::open_file::OpenFile;
use crate::procfs::smaps::Area;
use crate::procfs::{self, Fields};
use crate::remote::{Batch, Caller, RemoteFd};
use crate::sys::{kcmp, pidfd};
use crate::tracee::Tree;

/// `O_CLOEXEC` as fdinfo shows it (`include/uapi/asm-generic/fcntl.h`).
const CLOEXEC: u64 = 0o2_000_000;

/// How those that we opened ourselves are told apart: by what it is (device, inode, link), and how it is
/// open.
type Opened = (u64, u64, u64, OsString);

/// What was collected.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) objects: BTreeMap<ObjectId, ObjectRecord>,
    pub(crate) open_files: BTreeMap<OpenFileId, OpenFile>,
    pub(crate) descriptors: BTreeMap<(TableId, RemoteFd), Descriptor>,
    pub(crate) bulk: Bulk,
    pub(crate) as_before: AsBefore,
    pub(crate) notes: Vec<Note>,
    /// By the numbers of open files.
    found: Vec<(Found, Rc<Evidence>)>,
}

/// Collects; to be fed with all processes and mappings, then [`finished`](Self::finish).
#[derive(Debug)]
pub(crate) struct Collector<'a> {
    registry: Registry,
    familiar: &'a Familiar,
    tables: Ranked<(Pid, u32)>,
    spaces: Ranked<(Pid, u32)>,
    filesystems: Ranked<(Pid, u32)>,
    descriptors: BTreeMap<(TableId, RemoteFd), Descriptor>,
    /// Those that only their process can tell whether they are closed on exec.
    doubtful: BTreeMap<Pid, Vec<(TableId, RemoteFd)>>,
    /// POSIX locks, by whose table they were found in.
    locks: BTreeMap<Pid, Vec<(RawFd, Lock)>>,
    /// What we opened ourselves.
    opened: BTreeMap<Opened, OpenFileId>,
}

impl<'a> Collector<'a> {
    /// For a tree of these members; what the supervisor holds outside is no obstacle.
    pub(crate) fn new(
        members: BTreeSet<Pid>,
        externals: &[External],
        familiar: &'a Familiar,
    ) -> Result<Self> {
        Ok(Self {
            registry: Registry::new(members, externals)?,
            familiar,
            tables: Ranked::default(),
            spaces: Ranked::default(),
            filesystems: Ranked::default(),
            descriptors: BTreeMap::new(),
            doubtful: BTreeMap::new(),
            locks: BTreeMap::new(),
            opened: BTreeMap::new(),
        })
    }

    /// The address space of a process; whether it is the first that has it.
    pub(crate) fn space(&mut self, pid: Pid) -> Result<(SpaceId, bool)> {
        let (id, new) = shared(&mut self.spaces, kcmp::Shared::Space, pid)?;
        Ok((SpaceId(id), new))
    }

    /// Its working directory and root; whether it is the first that has them.
    pub(crate) fn filesystem(&mut self, pid: Pid) -> Result<(FsId, bool)> {
        let (id, new) = shared(&mut self.filesystems, kcmp::Shared::Fs, pid)?;
        Ok((FsId(id), new))
    }

    /// Its table of descriptors, all of which become known.
    pub(crate) fn table(&mut self, pid: Pid) -> Result<TableId> {
        let (id, new) = shared(&mut self.tables, kcmp::Shared::Table, pid)?;
        if new {
            self.descriptors(pid, TableId(id))?;
        }
        Ok(TableId(id))
    }

    /// The POSIX locks of a process. Of a shared table, all are the first one's that has it.
    pub(crate) fn posix_locks(&mut self, pid: Pid) -> Vec<(RawFd, Lock)> {
        self.locks.remove(&pid).unwrap_or_default()
    }

    #[tracing::instrument(level = "trace", skip_all)]
    fn descriptors(&mut self, pid: Pid, table: TableId) -> Result<()> {
        let mut of = Table { pid, id: table, process: None, locked: BTreeSet::new() };
        let familiar = self.familiar;
        let Some(all) = familiar.recognise(pid) else {
            return numbers(pid)?.into_iter().try_for_each(|number| self.ask_of(&mut of, number));
        };
        self.registry.make_room_for(all.len());
        let mut known = Vec::with_capacity(all.len());
        for (slot, one) in all {
            let Some(one) = one else {
                self.ask_of(&mut of, slot.number)?;
                continue;
            };
            let (held, told) = (Held::Theirs(pid, slot.number), Told::Position(slot.position));
            let open_file = self.registry.recall(one, (pid, held), told)?;
            let descriptor = Descriptor { open_file, cloexec: slot.cloexec };
            known.push(((table, RemoteFd(slot.number)), descriptor));
        }
        self.descriptors.append(&mut known.into_iter().collect());
        Ok(())
    }

    /// One descriptor, of which nothing is known that could not have changed.
    fn ask_of(&mut self, of: &mut Table, number: RawFd) -> Result<()> {
        let (pid, me, descriptor) = (of.pid, self.registry.me, (of.id, RemoteFd(number)));
        let info = procfs::text(format!("/proc/{pid}/fdinfo/{number}"));
        let info: Rc<str> = info.map_err(kernel_io("read"))?.into();
        let cloexec = Fields::parse(&info).take_number("flags", 8).unwrap_or(0) & CLOEXEC != 0;
        let told = Told::Info(Rc::clone(&info));
        let open_file = if let Some((one, held)) = self.familiar.descriptor((pid, number), me) {
            self.registry.recall(one, (pid, held), told)?
        } else {
            let fd = of.take(number)?;
            let stat = fstat(&fd).map_err(kernel("fstat"))?;
            if cloexec && is_slave(stat.st_rdev) {
                self.doubtful.entry(pid).or_default().push(descriptor);
            }
            let (held, name) = (Held::Ours(Rc::new(fd)), format!("fd {number}").into());
            let found = Found { held, holder: pid, name, told, familiar: None };
            self.registry.find_or_add((stat.st_dev, stat.st_ino), found)?
        };
        if info.contains("POSIX") && of.locked.insert(open_file) {
            let told = posix_locks_told(&info).map(|lock| (number, lock));
            self.locks.entry(pid).or_default().extend(told);
        }
        self.descriptors.insert(descriptor, Descriptor { open_file, cloexec });
        Ok(())
    }

    /// The open file under an area, if it is familiar.
    pub(crate) fn familiar(&mut self, pid: Pid, area: &Area<'_>) -> Result<Option<OpenFileId>> {
        let Some(one) = self.familiar.mapping(area) else { return Ok(None) };
        let Some(held) = one.held() else { return Ok(None) };
        let told = Told::Info(Rc::clone(&one.info));
        let id = self.registry.recall(one, (pid, held), told)?;
        self.opened.extend(one.own.clone().map(|key| (key, id)));
        Ok(Some(id))
    }

    /// Asks processes what fdinfo does not tell of slaves of pseudo-terminals: one that was opened by
    /// `TIOCGPTPEER` with `O_CLOEXEC` shows that flag for all descriptors that refer to it.
    pub(crate) fn ask(&mut self, tree: &mut Tree) -> Result<()> {
        for (pid, descriptors) in std::mem::take(&mut self.doubtful) {
            let mut batch = Batch::default();
            for (_, number) in &descriptors {
                batch.call("fcntl", SYS_fcntl, [(*number).into(), F_GETFD.into()]);
            }
            let mut loan = tree.borrow(Tid(pid.0))?;
            let replies = loan.perform(&batch)?;
            loan.finish()?;
            for (at, reply) in descriptors.iter().zip(replies) {
                let cloexec = reply.value()? & i64::from(FD_CLOEXEC) != 0;
                self.descriptors.entry(*at).and_modify(|one| one.cloexec = cloexec);
            }
        }
        Ok(())
    }

    /// Gives what we have opened on behalf of a process (a mapping's file through
    /// `/proc/PID/map_files`, its executable, a directory) an open file of its own. `name` is for
    /// people.
    pub(crate) fn opened(&mut self, pid: Pid, fd: OwnedFd, name: &str) -> Result<OpenFileId> {
        let link = procfs::link_of(fd.as_fd())?;
        let (stat, info) = (fstat(&fd).map_err(kernel("fstat"))?, info_of(&fd)?);
        let flags = Fields::parse(&info).take_number("flags", 8).unwrap_or(0);
        let inode = (stat.st_dev, stat.st_ino);
        let key = (inode.0, inode.1, flags, link);
        if let Some(known) = self.opened.get(&key) {
            return Ok(*known);
        }
        let (held, name, told) = (Held::Ours(Rc::new(fd)), name.into(), Told::Info(info.into()));
        let found = Found { held, holder: pid, name, told, familiar: None };
        let id = self.registry.add(inode, found)?;
        self.opened.insert(key, id);
        Ok(id)
    }

    /// Collects every object that was found; `close_tcp` gives up established connections.
    pub(crate) fn finish(
        self,
        close_tcp: bool,
        obstacles: &mut Vec<Obstacle>,
    ) -> Result<Collected> {
        let Self { registry, descriptors, .. } = self;
        let collected =
            objects::collect(registry, &descriptors, &self.tables, close_tcp, obstacles)?;
        Ok(Collected { descriptors, ..collected })
    }
}

/// A table of descriptors whose numbers are asked for one by one.
struct Table {
    pid: Pid,
    id: TableId,
    process: Option<OwnedFd>,
    /// Two numbers of one open file tell the same.
    locked: BTreeSet<OpenFileId>,
}

impl Table {
    fn take(&mut self, number: RawFd) -> Result<OwnedFd> {
        let process = match self.process.take() {
            Some(process) => process,
            None => pidfd::open(self.pid).map_err(kernel("pidfd_open"))?,
        };
        let taken = pidfd::take(process.as_fd(), number).map_err(kernel("pidfd_getfd"));
        self.process = Some(process);
        taken
    }
}

/// The id of what a process shares with others, and whether it is new.
fn shared(ids: &mut Ranked<(Pid, u32)>, what: kcmp::Shared, pid: Pid) -> Result<(u32, bool)> {
    let next = u32::try_from(ids.len()).map_err(|_| Error::Record("processes".into(), None))?;
    let compare = |(other, _): &(Pid, u32)| kcmp::shared(what, pid, *other);
    match ids.search(compare).map_err(kernel("kcmp"))? {
        Ok((_, id)) => Ok((id, false)),
        Err(place) => {
            ids.insert(place, (pid, next));
            Ok((next, true))
        }
    }
}

fn numbers(pid: Pid) -> Result<Vec<RawFd>> {
    let listed = fs::read_dir(format!("/proc/{pid}/fd")).map_err(kernel_io("readdir"))?;
    let number = |entry: std::io::Result<fs::DirEntry>| {
        let name = entry.map_err(kernel_io("readdir"))?.file_name();
        let number = name.to_str().and_then(|name| name.parse().ok());
        number.ok_or_else(|| Error::Record("/proc/PID/fd".into(), None))
    };
    let mut numbers = listed.map(number).collect::<Result<Vec<RawFd>>>()?;
    numbers.sort_unstable();
    Ok(numbers)
}

/// The fdinfo of one of ours.
fn info_of(fd: &OwnedFd) -> Result<String> {
    procfs::text(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).map_err(kernel_io("read"))
}

#[cfg(test)]
mod tests;
