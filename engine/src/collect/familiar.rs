//! Regular files that were looked at while the tree ran.
//!
//! To be told all of an open file takes some forty calls, and programs have hundreds: so that is done before
//! the pause. In it few calls tell whether it is as it was: the number leads to the same open file
//! (kcmp(2)), and the name to the same inode, which is unchanged (lstat(2)). Position, flags, locks and who is
//! signalled change without a trace in these, and are asked again. Who is not familiar, or not as it was, is
//! looked at in the pause, and so is all of an object that has such a part.
use std::cell::{OnceCell, RefCell};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::rc::Rc;

use nix::fcntl::OFlag;
use nix::libc::{S_IFMT, S_IFREG};
use nix::sys::stat::{FileStat, fstat, lstat};

use super::registry::{Found, Held, Told};
use super::watched::{Mounts, Recognised, Watched};
use super::{Collected, Collector, Opened, info_of, numbers, objects, watched};
use crate::census::slots::Shown;
use crate::error::{Result, kernel};
use crate::external::External;
use crate::files::{Candidate, Looked, began, is_own};
use crate::inventory::{ObjectId, ObjectRecord, OpenFileId, Pid};
use crate::lock::has_locks;
use crate::memory::collect::file;
use crate::object::{Claim, Evidence, Kind, classify, named_regular_file};
use crate::open_file::OpenFile;
use crate::procfs::smaps::{self, Area};
use crate::procfs::{self, Fields};
use crate::sys::{kcmp, pidfd};

/// Who is familiar.
#[derive(Debug, Default)]
pub struct Familiar {
    descriptors: BTreeMap<(Pid, RawFd), Rc<One>>,
    mappings: BTreeMap<Mapped, Rc<One>>,
    watched: Option<Watched>,
    /// Those that are watched and belong to the state, by their paths.
    files: Vec<Looked>,
}

/// What `maps` tells of the file under a private area: device, inode, path.
type Mapped = (String, u64, String);

/// An open file.
#[derive(Debug)]
pub(super) struct One {
    /// Ours: as long as we have it, its locks last. There is none of those that are watched.
    fd: RefCell<Option<Rc<OwnedFd>>>,
    /// For people.
    pub(super) name: Rc<str>,
    /// Its fdinfo then.
    pub(super) info: Rc<str>,
    pub(super) evidence: Rc<Evidence>,
    /// We opened it ourselves, so that nobody else can have changed it; how those are told apart.
    pub(super) own: Option<Opened>,
    open_file: OpenFile,
    pub(super) object: Rc<Object>,
    pub(super) claim: Option<(&'static Kind, Claim)>,
    /// Before all else was asked.
    pub(super) stat: FileStat,
}

/// What it refers to, and how many open files did.
#[derive(Debug)]
pub(super) struct Object {
    /// It is given away once.
    record: RefCell<Option<ObjectRecord>>,
    open_files: usize,
    /// Which of those that belong to the state it is.
    pub(super) file: OnceCell<usize>,
}

impl Familiar {
    /// Looks at processes that run. Who cannot be looked at now is asked in the pause.
    #[tracing::instrument(level = "trace", skip_all)]
    pub fn of(pids: &[Pid], externals: &[External]) -> Self {
        look(pids, externals, watched::MANY).unwrap_or_else(|error| {
            tracing::debug!(%error, "nothing is familiar");
            Self::default()
        })
    }

    /// The open file behind a descriptor, if it is as it was.
    pub(super) fn descriptor(
        &self,
        (pid, number): (Pid, RawFd),
        me: Pid,
    ) -> Option<(&Rc<One>, Held)> {
        let one = self.descriptors.get(&(pid, number))?;
        let held = one.held()?;
        let same = kcmp::files((pid, number), held.at(me)).is_ok_and(Ordering::is_eq);
        (same && one.is_as_it_was()).then_some((one, held))
    }

    /// All descriptors of a process, at once.
    pub(super) fn recognise(&self, pid: Pid) -> Option<Vec<Recognised<'_>>> {
        self.watched.as_ref()?.recognise(pid)
    }

    /// Files that belong to the state, and are watched.
    #[must_use]
    pub fn files(&self) -> &[Looked] {
        &self.files
    }

    /// Of objects of which all open files are watched.
    fn of_state(&self, pids: &[Pid]) -> Vec<Looked> {
        let mut by_object = BTreeMap::<*const Object, BTreeMap<*const One, &Rc<One>>>::new();
        for one in self.watched.iter().flat_map(Watched::all) {
            by_object.entry(Rc::as_ptr(&one.object)).or_default().insert(Rc::as_ptr(one), one);
        }
        let began = began(pids.iter());
        let whole = by_object.into_values().filter_map(|ones| {
            let (first, written) =
                (*ones.values().next()?, ones.values().any(|one| one.open_file.may_write()));
            let whole = ones.len() == first.object.open_files;
            let looked = whole.then(|| first.looked(!written))??;
            let stat = &looked.stat;
            let own = |began| is_own(stat.st_ctime, stat.st_size.cast_unsigned(), began);
            (written || began.is_some_and(own)).then_some((looked, first))
        });
        let mut all: Vec<_> = whole.collect();
        all.sort_by(|(one, _), (other, _)| one.candidate.path.cmp(&other.candidate.path));
        let known = all.into_iter().enumerate().map(|(at, (looked, one))| {
            one.object.file.get_or_init(|| at);
            looked
        });
        known.collect()
    }

    /// The open file under an area, likewise.
    pub(super) fn mapping(&self, area: &Area<'_>) -> Option<&Rc<One>> {
        let one = self.mappings.get(&mapped(area)?)?;
        one.is_as_it_was().then_some(one)
    }
}

impl One {
    /// Our duplicate.
    pub(super) fn held(&self) -> Option<Held> {
        self.fd.borrow().clone().map(Held::Ours)
    }

    /// Lets go of it: whoever has it may close it from now on.
    pub(super) fn let_go(&self) {
        self.fd.take();
    }

    fn is_as_it_was(&self) -> bool {
        let key = |stat: &FileStat| {
            let changed = [stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec];
            (stat.st_dev, stat.st_ino, stat.st_mode, stat.st_nlink, stat.st_size, changed)
        };
        lstat(self.evidence.link.as_os_str()).is_ok_and(|now| key(&now) == key(&self.stat))
    }

    fn looked(&self, read_only: bool) -> Option<Looked> {
        let record = self.object.record.borrow();
        let (path, device, inode) = named_regular_file(record.as_ref()?)?;
        let candidate = Candidate { device, inode, path, mapped: false, read_only };
        Some(Looked { candidate, stat: self.stat })
    }

    /// Whether a row of the kernel's says the same of it, and would say of every change.
    pub(super) fn is_told_by(&self, shown: &Shown) -> bool {
        let flags = shown.flags().filter(|flags| self.open_file.is_plain(*flags));
        self.own.is_none() && flags.is_some() && shown.is_told_by(&self.stat)
    }

    /// As it is now; `None` if its fdinfo tells what a familiar one has not.
    pub(super) fn open_file(&self, object: ObjectId, told: &Told) -> Result<Option<OpenFile>> {
        let info = match told {
            _ if self.own.is_some() => return Ok(Some(self.open_file.moved_to(object))),
            Told::Position(position) => {
                return Ok(Some(self.open_file.moved_to(object).standing_at(*position)));
            }
            Told::Info(info) => info,
        };
        let (mut info, end) = (Fields::parse(info), self.open_file.refers_to().1);
        let Some(held) = self.held() else { return Ok(None) };
        let (now, cause) = OpenFile::collect(held.fd()?.as_fd(), object, end, &mut info)?;
        let plain = cause.is_none() && info.leftover().next().is_none();
        Ok(plain.then_some(now))
    }
}

/// The object of these open files, if they are all of its, and all are familiar.
pub(super) fn object<'a>(
    mut all: impl Iterator<Item = &'a Found> + Clone,
) -> Option<&'a Rc<Object>> {
    let (count, object) = (all.clone().count(), &all.clone().next()?.familiar.as_ref()?.object);
    let is_its = |one: &Rc<One>| Rc::ptr_eq(&one.object, object);
    let same = all.all(|found| found.familiar.as_ref().is_some_and(is_its));
    (same && object.open_files == count).then_some(object)
}

impl Object {
    /// Its record, once.
    pub(super) fn record(&self) -> Option<ObjectRecord> {
        self.record.take()
    }
}

fn mapped(area: &Area<'_>) -> Option<Mapped> {
    let key = || (area.device.to_owned(), area.inode, area.name.to_owned());
    (area.inode != 0 && !area.shared).then(key)
}

/// From so `many` descriptors on, they are watched.
pub(super) fn look(pids: &[Pid], externals: &[External], many: usize) -> Result<Familiar> {
    let mounts = Mounts::now();
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
    let mut familiar = seen.familiar(collected, own);
    familiar.watched = Watched::of(&familiar.descriptors, many, mounts);
    familiar.files = familiar.of_state(pids);
    Ok(familiar)
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
            if has_locks(&info) {
                continue;
            }
            let (held, name) = (Held::Ours(Rc::new(fd)), format!("fd {number}").into());
            let told = Told::Info(info.into());
            let found = Found { held, holder: pid, name, told, familiar: None };
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
                let (record, file) = (RefCell::new(Some(record)), OnceCell::new());
                (id, Rc::new(Object { record, open_files, file }))
            })
            .collect();
        let one = |(at, (found, evidence)): (usize, (Found, Rc<Evidence>))| {
            let id = OpenFileId(u32::try_from(at).ok()?);
            let (open_file, stat) = (open_files.remove(&id)?, *self.stats.get(&id)?);
            let object = Rc::clone(objects.get(&open_file.refers_to().0)?);
            let info = found.info().ok()?;
            let (fd, name) = (RefCell::new(Some(found.held.fd().ok()?)), found.name);
            let own = own.remove(&id);
            let plain = evidence.external.is_none() && !evidence.is_place();
            let claim = classify(&evidence);
            let one = One { fd, name, info, evidence, own, open_file, object, claim, stat };
            plain.then(|| (id, Rc::new(one)))
        };
        let all: BTreeMap<_, _> = found.into_iter().enumerate().filter_map(one).collect();
        let with = |id: OpenFileId| all.get(&id).cloned();
        Familiar {
            watched: None,
            files: Vec::new(),
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
