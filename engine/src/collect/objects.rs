//! Which open files make up an object, and what its kind says of it.
#[cfg(test)]
use std::collections::BTreeSet;
use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use super::ranked::Ranked;
use super::registry::{Found, Held, Registry, Told};
use super::unsupported;
use super::{Collected, familiar, info_of};
use crate::error::{Cause, Error, Obstacle, Result, kernel};
use crate::files::AsBefore;
use crate::image::Bulk;
use crate::inventory::{Descriptor, End, Note, ObjectId, ObjectRecord, OpenFileId, Pid, TableId};
use crate::object::{Claim, Collect, Entry, Evidence, Identity, Kind, References, classify};
use crate::open_file::OpenFile;
use crate::procfs::Fields;
use crate::remote::RemoteFd;
use crate::sys::kcmp;

const UNCLAIMED: Cause = Cause {
    code: "object:unclaimed",
    reason: "the kernel says something of it that we do not understand",
    remedy: "report it, with the line of /proc/PID/fdinfo that is named",
};

/// What tells objects apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    OpenFile(OpenFileId),
    Identity(&'static str, Identity),
}

/// An object in the making.
struct Draft {
    kind: &'static Kind,
    files: Vec<(OpenFileId, End)>,
    /// Files were added since it was last collected.
    stale: bool,
    obstacles: Vec<Obstacle>,
    notes: Vec<Note>,
    record: Option<ObjectRecord>,
    /// All of it is watched, and as it was.
    watched: Option<Rc<familiar::Object>>,
}

struct Drafts<'a> {
    registry: Registry,
    descriptors: &'a BTreeMap<(TableId, RemoteFd), Descriptor>,
    table_of: BTreeMap<Pid, TableId>,
    /// By their ids.
    all: Vec<Draft>,
    by_key: HashMap<Key, ObjectId>,
    /// The last of each counts.
    open_files: Vec<(OpenFileId, OpenFile)>,
    /// How many of the registry's files belong to a draft.
    assigned: usize,
    bulk: Bulk,
    close_tcp: bool,
}

/// Collects all objects, to a fixpoint over descriptors in flight.
pub(super) fn collect(
    registry: Registry,
    descriptors: &BTreeMap<(TableId, RemoteFd), Descriptor>,
    tables: &Ranked<(Pid, u32)>,
    close_tcp: bool,
    obstacles: &mut Vec<Obstacle>,
) -> Result<Collected> {
    let count = registry.found.len();
    let mut work = Drafts {
        registry,
        descriptors,
        table_of: tables.iter().map(|(pid, table)| (*pid, TableId(*table))).collect(),
        all: Vec::with_capacity(count),
        by_key: HashMap::with_capacity(count),
        open_files: Vec::with_capacity(count),
        assigned: 0,
        bulk: Bulk::default(),
        close_tcp,
    };
    loop {
        work.assign(obstacles)?;
        let stale = (0..).map(ObjectId).zip(&work.all).filter(|(_, draft)| draft.stale);
        let stale: Vec<_> = stale.map(|(id, _)| id).collect();
        if stale.is_empty() {
            break;
        }
        stale.into_iter().try_for_each(|id| work.collect(id))?;
    }
    let (mut objects, mut notes) = (Vec::with_capacity(work.all.len()), Vec::new());
    let mut as_before = Vec::with_capacity(work.all.len());
    for (id, mut draft) in (0..).map(ObjectId).zip(work.all) {
        obstacles.append(&mut draft.obstacles);
        notes.append(&mut draft.notes);
        as_before.extend(draft.watched.map(|known| (id, known.file.get().copied())));
        objects.extend(draft.record.map(|record| (id, record)));
    }
    let (objects, open_files) =
        (objects.into_iter().collect(), work.open_files.into_iter().collect());
    let (as_before, bulk, found) = (AsBefore(as_before), work.bulk, work.registry.found);
    Ok(Collected { objects, open_files, bulk, as_before, notes, found, ..Collected::default() })
}

impl Drafts<'_> {
    /// Gives every open file that has none its object.
    fn assign(&mut self, obstacles: &mut Vec<Obstacle>) -> Result<()> {
        let mut grown = false;
        for id in self.registry.ids(self.assigned) {
            self.assigned += 1;
            let Some((found, evidence)) = self.registry.get(id) else { continue };
            let claim = found.familiar.as_ref().and_then(|one| one.claim);
            let Some((kind, claim)) = claim.or_else(|| classify(evidence)) else {
                let cause = *unsupported::cause(evidence);
                let (pid, object) = (Some(found.holder), found.name.to_string());
                obstacles.push(Obstacle { pid, object, cause });
                continue;
            };
            let object = self.object(id, kind, claim)?;
            if let Some(draft) = draft_of(&mut self.all, object) {
                draft.files.push((id, claim.end));
                draft.stale = true;
            }
            grown = true;
        }
        // What was missing then may be known now.
        for draft in self.all.iter_mut().filter(|draft| grown && !draft.obstacles.is_empty()) {
            draft.stale = true;
        }
        Ok(())
    }

    fn object(&mut self, id: OpenFileId, kind: &'static Kind, claim: Claim) -> Result<ObjectId> {
        let key = match claim.identity {
            Identity::OpenFile => Key::OpenFile(id),
            identity @ Identity::Inode(_) => Key::Identity(kind.name, identity),
        };
        let next = u32::try_from(self.all.len());
        let next = ObjectId(next.map_err(|_| Error::Record("objects".into(), None))?);
        let object = *self.by_key.entry(key).or_insert(next);
        if object == next {
            self.all.push(Draft::of(kind));
        }
        Ok(object)
    }

    fn collect(&mut self, object: ObjectId) -> Result<()> {
        let Some(draft) = draft_of(&mut self.all, object) else { return Ok(()) };
        (draft.stale, draft.watched) = (false, None);
        let (kind, members) = (draft.kind, std::mem::take(&mut draft.files));
        if !self.recall(object, &members)? {
            self.look_at(object, kind, &members)?;
        }
        if let Some(draft) = draft_of(&mut self.all, object) {
            draft.files = members;
        }
        Ok(())
    }

    /// Asks it whatever there is to know.
    fn look_at(
        &mut self,
        object: ObjectId,
        kind: &'static Kind,
        members: &[(OpenFileId, End)],
    ) -> Result<()> {
        let (mut obstacles, mut notes) = (Vec::new(), Vec::new());
        let parts = self.parts(members)?;
        let Some(first) = parts.first() else { return Ok(()) };
        let (holder, name) = (first.holder, first.name.to_string());
        let mut info = Fields::parse("");
        for part in &parts {
            let mut fields = Fields::parse(&part.info);
            let fd = part.fd.as_fd();
            let (file, cause) = OpenFile::collect(fd, object, part.end, &mut fields)?;
            let blame = |cause: &Cause| Obstacle {
                pid: Some(part.holder),
                object: part.name.to_string(),
                cause: *cause,
            };
            obstacles.extend(cause.map(blame));
            self.open_files.push((part.id, file));
            info.append(fields);
        }
        let external = parts.iter().find_map(|part| part.external.clone());
        let sockets = Rc::clone(&self.registry.sockets);
        let files: Vec<_> = parts.iter().map(|part| (part.end, Rc::clone(&part.fd))).collect();
        self.bulk.bytes.retain(|(of, _), _| *of != object);
        let mut tree = Tree {
            registry: &mut self.registry,
            descriptors: self.descriptors,
            table_of: &self.table_of,
            holder,
        };
        let mut with = Collect {
            object,
            holder,
            name: name.clone(),
            files: &files,
            info,
            external: external.as_deref(),
            close_tcp: self.close_tcp,
            sockets: &sockets,
            tree: &mut tree,
            bulk: &mut self.bulk,
            obstacles: &mut obstacles,
            notes: &mut notes,
        };
        let state = (kind.collect)(&mut with)?;
        let unclaimed: Vec<_> = with.info.leftover().map(str::to_owned).collect();
        obstacles.extend(unclaimed.into_iter().map(|key| Obstacle {
            pid: Some(holder),
            object: format!("{name}, line \"{key}\""),
            cause: UNCLAIMED,
        }));
        let (place, needs) = ((kind.place)(&state)?, (kind.needs)(&state)?);
        let record = ObjectRecord { kind: kind.name.into(), place, needs, state };
        if let Some(draft) = draft_of(&mut self.all, object) {
            (draft.obstacles, draft.notes, draft.record) = (obstacles, notes, Some(record));
        }
        Ok(())
    }

    /// Whether all of it was known before the pause, and is as it was.
    fn recall(&mut self, object: ObjectId, members: &[(OpenFileId, End)]) -> Result<bool> {
        let found = members.iter().filter_map(|(id, _)| Some((*id, &self.registry.get(*id)?.0)));
        let known = familiar::object(found.clone().map(|(_, one)| one)).cloned();
        let Some(known) = known else {
            return Ok(false);
        };
        let mut watched = true;
        for (id, one) in found {
            let now = one.familiar.as_ref().map(|known| known.open_file(object, &one.told));
            let Some(now) = now.transpose()?.flatten() else { return Ok(false) };
            self.open_files.push((id, now));
            watched &= matches!(one.told, Told::Position(_));
        }
        let Some(record) = known.record() else { return Ok(false) };
        if let Some(draft) = draft_of(&mut self.all, object) {
            draft.record = Some(record);
            draft.watched = watched.then_some(known);
        }
        Ok(true)
    }

    fn parts(&self, members: &[(OpenFileId, End)]) -> Result<Vec<Part>> {
        let found = members.iter().filter_map(|(id, end)| Some((id, end, self.registry.get(*id)?)));
        found.map(|(id, end, (found, seen))| Part::of(*id, *end, found, seen)).collect()
    }
}

impl Draft {
    fn of(kind: &'static Kind) -> Self {
        let (files, obstacles, notes) = (Vec::new(), Vec::new(), Vec::new());
        Self { kind, files, stale: true, obstacles, notes, record: None, watched: None }
    }
}

fn draft_of(all: &mut [Draft], object: ObjectId) -> Option<&mut Draft> {
    all.get_mut(usize::try_from(object.0).ok()?)
}

/// One open file of an object, apart from the registry: collecting may add to that.
struct Part {
    id: OpenFileId,
    end: End,
    fd: Rc<OwnedFd>,
    holder: Pid,
    name: Rc<str>,
    info: Rc<str>,
    external: Option<String>,
}

impl Part {
    fn of(id: OpenFileId, end: End, found: &Found, seen: &Evidence) -> Result<Self> {
        let fd = found.held.fd()?;
        let (name, info) = (Rc::clone(&found.name), found.info()?);
        let external = seen.external.clone();
        Ok(Self { id, end, fd, holder: found.holder, name, info, external })
    }
}

/// The tree as kinds see it.
struct Tree<'a> {
    registry: &'a mut Registry,
    descriptors: &'a BTreeMap<(TableId, RemoteFd), Descriptor>,
    table_of: &'a BTreeMap<Pid, TableId>,
    holder: Pid,
}

impl Tree<'_> {
    fn try_adopt(&mut self, found: OwnedFd) -> Result<OpenFileId> {
        let stat = nix::sys::stat::fstat(&found).map_err(kernel("fstat"))?;
        let inode = (stat.st_dev, stat.st_ino);
        if let Some(known) = self.registry.find(inode, found.as_fd())? {
            return Ok(known);
        }
        let info = info_of(&found)?;
        let (name, holder) = ("a descriptor in flight".into(), self.holder);
        let (held, told) = (Held::Ours(Rc::new(found)), Told::Info(info.into()));
        self.registry.add(inode, Found { held, holder, name, told, familiar: None })
    }
}

impl References for Tree<'_> {
    fn open_file_at(&self, holder: Pid, fd: RemoteFd) -> Option<OpenFileId> {
        let table = self.table_of.get(&holder)?;
        self.descriptors.get(&(*table, fd)).map(|descriptor| descriptor.open_file)
    }

    fn watched(
        &self,
        holder: Pid,
        epoll: BorrowedFd<'_>,
        entry: &Entry,
    ) -> Result<Option<OpenFileId>> {
        let (epoll, number) = (epoll.as_raw_fd().unsigned_abs(), entry.number.0.unsigned_abs());
        let slot = kcmp::EpollSlot { epoll, number, index: entry.index };
        // In most cases the number means what it did.
        if let Some(id) = self.open_file_at(holder, entry.number)
            && let Some((known, _)) = self.registry.get(id)
            && kcmp::watched(known.held.at(self.registry.me), self.registry.me, &slot)
                .map_err(kernel("kcmp"))?
                .is_eq()
        {
            return Ok(Some(id));
        }
        self.registry.watched(entry.inode, &slot)
    }

    fn open_file_of(&self, inode: u64) -> Option<OpenFileId> {
        self.registry.socket(inode)
    }

    fn adopt(&mut self, found: OwnedFd) -> Result<OpenFileId> {
        self.try_adopt(found)
    }

    fn member(&self, seen_as: i32) -> Option<Pid> {
        Some(Pid(seen_as)).filter(|pid| self.registry.members.contains(pid))
    }
}

/// Which kinds were found.
#[cfg(test)]
pub(super) fn kinds(collected: &Collected) -> BTreeSet<&str> {
    collected.objects.values().map(|record| record.kind.as_str()).collect()
}
