//! Every open file of the tree, once, and where it is to be had.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

use nix::sys::stat::fstat;

use super::familiar::One;
use super::info_of;
use super::ranked::Ranked;
use crate::error::{Error, Result, kernel};
use crate::external::External;
use crate::inventory::{OpenFileId, Pid};
use crate::object::{Evidence, Sockets};
use crate::sys::{kcmp, pidfd};

/// An open file as it was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) held: Held,
    /// Some process that has it.
    pub(super) holder: Pid,
    /// For people: what it is to whoever has it; what it is itself is added.
    pub(super) name: Rc<str>,
    pub(super) told: Told,
    /// It was known before the pause, and is as it was but for what is told.
    pub(super) familiar: Option<Rc<One>>,
}

/// Where an open file is to be had.
#[derive(Debug, Clone)]
pub(super) enum Held {
    /// We have a duplicate.
    Ours(Rc<OwnedFd>),
    /// Somebody has it by this number, who stands.
    Theirs(Pid, RawFd),
}

impl Held {
    /// Who has it, and by which number.
    pub(super) fn at(&self, me: Pid) -> (Pid, RawFd) {
        match self {
            Self::Ours(fd) => (me, fd.as_raw_fd()),
            Self::Theirs(pid, number) => (*pid, *number),
        }
    }

    /// A duplicate of ours.
    pub(super) fn fd(&self) -> Result<Rc<OwnedFd>> {
        match self {
            Self::Ours(fd) => Ok(Rc::clone(fd)),
            Self::Theirs(pid, number) => {
                let process = pidfd::open(*pid).map_err(kernel("pidfd_open"))?;
                let taken = pidfd::take(process.as_fd(), *number);
                taken.map(Rc::new).map_err(kernel("pidfd_getfd"))
            }
        }
    }
}

/// What an open file tells without having changed.
#[derive(Debug, Clone)]
pub(super) enum Told {
    /// All of its fdinfo.
    Info(Rc<str>),
    /// Where it stands: all else is as it was.
    Position(i64),
}

impl Found {
    /// Its fdinfo.
    pub(super) fn info(&self) -> Result<Rc<str>> {
        match &self.told {
            Told::Info(info) => Ok(Rc::clone(info)),
            Told::Position(_) => info_of(self.held.fd()?.as_ref()).map(Rc::from),
        }
    }
}

/// `st_dev` and `st_ino`: what makes a comparison worth while.
pub(super) type InodeKey = (u64, u64);

#[derive(Debug)]
pub(super) struct Registry {
    pub(super) me: Pid,
    pub(super) members: BTreeSet<Pid>,
    pub(super) found: Vec<(Found, Rc<Evidence>)>,
    by_inode: HashMap<InodeKey, Ranked<OpenFileId>>,
    externals: BTreeMap<InodeKey, String>,
    /// All Unix sockets there are, asked at most once.
    pub(super) sockets: Rc<Sockets>,
}

impl Registry {
    pub(super) fn new(members: BTreeSet<Pid>, externals: &[External]) -> Result<Self> {
        let key = |external: &External| {
            let stat = fstat(&external.fd).map_err(kernel("fstat"))?;
            Ok(((stat.st_dev, stat.st_ino), external.key.clone()))
        };
        Ok(Self {
            me: Pid(std::process::id().cast_signed()),
            members,
            found: Vec::new(),
            by_inode: HashMap::new(),
            externals: externals.iter().map(key).collect::<Result<_>>()?,
            sockets: Rc::default(),
        })
    }

    /// So many are about to become known.
    pub(super) fn make_room_for(&mut self, count: usize) {
        self.found.reserve(count);
        self.by_inode.reserve(count);
    }

    /// The open file behind a duplicate, if it is known.
    pub(super) fn find(&self, inode: InodeKey, ours: BorrowedFd<'_>) -> Result<Option<OpenFileId>> {
        Ok(self.search(inode, (self.me, ours.as_raw_fd()))?.ok())
    }

    /// Makes one known that is not yet.
    pub(super) fn add(&mut self, inode: InodeKey, mut found: Found) -> Result<OpenFileId> {
        let evidence = self.evidence(inode, &found)?;
        found.name = format!("{} ({})", found.name, evidence.link.display()).into();
        let place = self.search(inode, found.held.at(self.me))?.err();
        self.insert((inode, place), found, Rc::new(evidence))
    }

    /// Makes one known if it is not yet.
    pub(super) fn find_or_add(&mut self, inode: InodeKey, found: Found) -> Result<OpenFileId> {
        match self.search(inode, found.held.at(self.me))? {
            Ok(known) => Ok(known),
            Err(_) => self.add(inode, found),
        }
    }

    /// Likewise, of one that was looked at before.
    pub(super) fn recall(
        &mut self,
        one: &Rc<One>,
        (holder, held): (Pid, Held),
        told: Told,
    ) -> Result<OpenFileId> {
        let inode = (one.evidence.inode.device, one.evidence.inode.number);
        let place = match self.search(inode, held.at(self.me))? {
            Ok(known) => return Ok(known),
            Err(place) => place,
        };
        let (name, familiar) = (Rc::clone(&one.name), Some(Rc::clone(one)));
        let found = Found { held, holder, name, told, familiar };
        self.insert((inode, Some(place)), found, Rc::clone(&one.evidence))
    }

    fn insert(
        &mut self,
        (inode, place): (InodeKey, Option<usize>),
        found: Found,
        evidence: Rc<Evidence>,
    ) -> Result<OpenFileId> {
        let id = u32::try_from(self.found.len());
        let id = OpenFileId(id.map_err(|_| Error::Record("open files".into(), None))?);
        if let Some(place) = place {
            self.by_inode.entry(inode).or_default().insert(place, id);
        }
        self.found.push((found, evidence));
        Ok(id)
    }

    fn evidence(&self, inode: InodeKey, found: &Found) -> Result<Evidence> {
        let mut evidence = Evidence::of(found.held.fd()?.as_fd(), &self.sockets)?;
        evidence.external = self.externals.get(&inode).cloned();
        Ok(evidence)
    }

    /// What was found under this id.
    pub(super) fn get(&self, id: OpenFileId) -> Option<&(Found, Rc<Evidence>)> {
        self.found.get(usize::try_from(id.0).ok()?)
    }

    /// The open file of a socket with this inode number.
    pub(super) fn socket(&self, inode: u64) -> Option<OpenFileId> {
        let is = |(_, evidence): &&(Found, Rc<Evidence>)| {
            evidence.socket.is_some() && evidence.inode.number == inode
        };
        let at = self.found.iter().position(|one| is(&one))?;
        u32::try_from(at).ok().map(OpenFileId)
    }

    /// What an entry of an epoll of ours watches, among all that have this inode number.
    pub(super) fn watched(&self, inode: u64, slot: &kcmp::EpollSlot) -> Result<Option<OpenFileId>> {
        for (_, known) in self.by_inode.iter().filter(|((_, number), _)| *number == inode) {
            let compare = |id: &OpenFileId| match self.get(*id) {
                Some((known, _)) => kcmp::watched(known.held.at(self.me), self.me, slot)
                    .map(std::cmp::Ordering::reverse),
                None => Err(nix::errno::Errno::EBADF),
            };
            if let Ok(found) = known.search(compare).map_err(kernel("kcmp"))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// All ids from `first` on.
    pub(super) fn ids(&self, first: usize) -> impl Iterator<Item = OpenFileId> + use<> {
        (first..self.found.len()).filter_map(|at| u32::try_from(at).ok()).map(OpenFileId)
    }

    fn search(
        &self,
        inode: InodeKey,
        sought: (Pid, RawFd),
    ) -> Result<std::result::Result<OpenFileId, usize>> {
        let Some(known) = self.by_inode.get(&inode) else { return Ok(Err(0)) };
        let compare = |id: &OpenFileId| match self.get(*id) {
            Some((known, _)) => kcmp::files(sought, known.held.at(self.me)),
            None => Err(nix::errno::Errno::EBADF),
        };
        known.search(compare).map_err(kernel("kcmp"))
    }
}
