//! Regular files that were looked at while the tree ran.
//!
//! To be told all of an open file takes some forty calls, and programs have hundreds: so that is done before
//! the pause. In it few calls tell whether it is as it was: the number leads to the same open file
//! (kcmp(2)), and the name to the same inode, which is unchanged (lstat(2)). Position, flags, locks and who is
//! signalled change without a trace in these, and are asked again. Who is not familiar, or not as it was, is
//! looked at in the pause, and so is all of an object that has such a part.
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use nix::fcntl::OFlag;
use nix::libc::{S_IFMT, S_IFREG};
use nix::sys::stat::{FileStat, fstat, lstat};

use super::registry::Found;
use super::{Collected, Collector, Opened, info_of, numbers, objects};
use crate::error::{Result, kernel};
use crate::external::External;
use crate::inventory::{ObjectId, ObjectRecord, OpenFileId, Pid};
use crate::lock::is_leased;
use crate::memory::collect::file;
use crate::object::{Evidence, named_regular_file};
use crate::open_file::OpenFile;
use crate::procfs::smaps::{self, Area};
use crate::procfs::{self, Fields};
use crate::sys::{kcmp, pidfd};

/// Who is familiar.
#[derive(Debug, Default)]
pub struct Familiar {
    descriptors: BTreeMap<(Pid, RawFd), Rc<One>>,
    mappings: BTreeMap<Mapped, Rc<One>>,
}

/// What `maps` tells of the file under a private area: device, inode, path.
type Mapped = (String, u64, String);

/// An open file.
#[derive(Debug)]
pub(super) struct One {
    /// Ours.
    pub(super) fd: Rc<OwnedFd>,
    /// For people.
    pub(super) name: String,
    /// Its fdinfo then.
    pub(super) info: String,
    pub(super) evidence: Evidence,
    /// We opened it ourselves, so that nobody else can have changed it; how those are told apart.
    pub(super) own: Option<Opened>,
    open_file: OpenFile,
    object: Rc<Object>,
    /// Before all else was asked.
    stat: FileStat,
}

/// What it refers to, and how many open files did.
#[derive(Debug)]
struct Object {
    record: ObjectRecord,
    open_files: usize,
}

impl Familiar {
    /// Looks at processes that run. Who cannot be looked at now is asked in the pause.
    #[tracing::instrument(level = "trace", skip_all)]
    pub fn of(pids: &[Pid], externals: &[External]) -> Self {
        look(pids, externals).unwrap_or_else(|error| {
            tracing::debug!(%error, "nothing is familiar");
            Self::default()
        })
    }

    /// The open file behind a descriptor, if it is as it was.
    pub(super) fn descriptor(&self, (pid, number): (Pid, RawFd), me: Pid) -> Option<&Rc<One>> {
        let one = self.descriptors.get(&(pid, number))?;
        let same = kcmp::files((pid, number), (me, one.fd.as_raw_fd())).is_ok_and(Ordering::is_eq);
        (same && one.is_as_it_was()).then_some(one)
    }

    /// The open file under an area, likewise.
    pub(super) fn mapping(&self, area: &Area<'_>) -> Option<&Rc<One>> {
        let one = self.mappings.get(&mapped(area)?)?;
        one.is_as_it_was().then_some(one)
    }
}

impl One {
    fn is_as_it_was(&self) -> bool {
        let key = |stat: &FileStat| {
            let changed = [stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec];
            (stat.st_dev, stat.st_ino, stat.st_mode, stat.st_nlink, stat.st_size, changed)
        };
        lstat(self.evidence.link.as_str()).is_ok_and(|now| key(&now) == key(&self.stat))
    }

    /// As it is now, by its fdinfo; `None` if that tells what a familiar one has not.
    pub(super) fn open_file(&self, object: ObjectId, info: &str) -> Result<Option<OpenFile>> {
        if self.own.is_some() {
            return Ok(Some(self.open_file.moved_to(object)));
        }
        let (mut info, end) = (Fields::parse(info), self.open_file.refers_to().1);
        let (now, cause) = OpenFile::collect(self.fd.as_fd(), object, end, &mut info)?;
        let plain = cause.is_none() && info.leftover().next().is_none();
        Ok(plain.then_some(now))
    }
}

/// The record of an object, if these are all of its open files, and all are familiar.
pub(super) fn record<'a>(all: impl Iterator<Item = &'a Found>) -> Option<&'a ObjectRecord> {
    let all: Vec<_> = all.map(|found| found.familiar.as_ref()).collect::<Option<_>>()?;
    let object = &all.first()?.object;
    let same = all.iter().all(|one| Rc::ptr_eq(&one.object, object));
    (same && object.open_files == all.len()).then_some(&object.record)
}

fn mapped(area: &Area<'_>) -> Option<Mapped> {
    let key = || (area.device.to_owned(), area.inode, area.name.to_owned());
    (area.inode != 0 && !area.shared).then(key)
}

fn look(pids: &[Pid], externals: &[External]) -> Result<Familiar> {
    let nobody = Familiar::default();
    let mut collector = Collector::new(pids.iter().copied().collect(), externals, &nobody)?;
    let mut seen = Seen::default();
    for pid in pids {
        seen.descriptors(&mut collector, *pid)?;
        seen.mappings(&mut collector, *pid)?;
    }
    let mut obstacles = Vec::new();
    let Collector { registry, tables, opened, .. } = collector;
    let none = BTreeMap::new();
    let collected = objects::collect(registry, &none, &tables, false, &mut obstacles)?;
    if !obstacles.is_empty() {
        return Ok(nobody); // They will be in the way in the pause, too.
    }
    let own = opened.into_iter().map(|(key, id)| (id, key)).collect();
    Ok(seen.familiar(collected, own))
}

/// What processes that run have.
#[derive(Debug, Default)]
struct Seen {
    descriptors: Vec<((Pid, RawFd), OpenFileId)>,
    mappings: BTreeMap<Mapped, OpenFileId>,
    stats: BTreeMap<OpenFileId, FileStat>,
}

impl Seen {
    fn descriptors(&mut self, collector: &mut Collector<'_>, pid: Pid) -> Result<()> {
        // Processes end, and close descriptors: then there is nothing to know.
        let (Ok(process), Ok(numbers)) = (pidfd::open(pid), numbers(pid)) else { return Ok(()) };
        for number in numbers {
            let Ok(fd) = pidfd::take(process.as_fd(), number) else { continue };
            let stat = fstat(&fd).map_err(kernel("fstat"))?;
            if stat.st_mode & S_IFMT != S_IFREG {
                continue;
            }
            let inode = (stat.st_dev, stat.st_ino);
            let info = info_of(&fd)?;
            if is_leased(&info) {
                continue;
            }
            let (fd, name) = (Rc::new(fd), format!("fd {number}"));
            let found = Found { fd, holder: pid, name, info, familiar: None };
            let id = collector.registry.find_or_add(inode, found)?;
            self.stats.entry(id).or_insert(stat);
            self.descriptors.push(((pid, number), id));
        }
        Ok(())
    }

    fn mappings(&mut self, collector: &mut Collector<'_>, pid: Pid) -> Result<()> {
        let maps = procfs::text(format!("/proc/{pid}/maps")).unwrap_or_default();
        for area in smaps::parse(&maps).unwrap_or_default() {
            let Some(key) = mapped(&area).filter(|key| !self.mappings.contains_key(key)) else {
                continue;
            };
            let link = format!("/proc/{pid}/map_files/{:x}-{:x}", area.start, area.end);
            let Ok(fd) = file(&link, OFlag::O_RDONLY) else { continue };
            let stat = fstat(&fd).map_err(kernel("fstat"))?;
            if stat.st_mode & S_IFMT == S_IFREG {
                let id = collector.opened(pid, fd, "mapping")?;
                self.stats.entry(id).or_insert(stat);
                self.mappings.insert(key, id);
            }
        }
        Ok(())
    }

    fn familiar(self, collected: Collected, mut own: BTreeMap<OpenFileId, Opened>) -> Familiar {
        let Collected { objects, mut open_files, bulk, found, .. } = collected;
        let mut counts = BTreeMap::<ObjectId, usize>::new();
        for one in open_files.values() {
            *counts.entry(one.refers_to().0).or_default() += 1;
        }
        let kept = |id: &ObjectId, record: &ObjectRecord| {
            named_regular_file(record).is_some() && !bulk.files.contains_key(id)
        };
        let objects = objects.into_iter().filter(|(id, record)| kept(id, record));
        let objects: BTreeMap<_, _> = objects
            .map(|(id, record)| {
                let open_files = counts.get(&id).copied().unwrap_or_default();
                (id, Rc::new(Object { record, open_files }))
            })
            .collect();
        let one = |(at, (found, evidence)): (usize, (Found, Evidence))| {
            let id = OpenFileId(u32::try_from(at).ok()?);
            let (open_file, stat) = (open_files.remove(&id)?, *self.stats.get(&id)?);
            let object = Rc::clone(objects.get(&open_file.refers_to().0)?);
            let Found { fd, name, info, .. } = found;
            let own = own.remove(&id);
            let plain = evidence.external.is_none() && !evidence.is_place();
            let one = One { fd, name, info, evidence, own, open_file, object, stat };
            plain.then(|| (id, Rc::new(one)))
        };
        let all: BTreeMap<_, _> = found.into_iter().enumerate().filter_map(one).collect();
        let with = |id: OpenFileId| all.get(&id).cloned();
        Familiar {
            descriptors: self
                .descriptors
                .into_iter()
                .filter_map(|(at, id)| Some((at, with(id)?)))
                .collect(),
            mappings: self
                .mappings
                .into_iter()
                .filter_map(|(key, id)| Some((key, with(id)?)))
                .collect(),
        }
    }
}
