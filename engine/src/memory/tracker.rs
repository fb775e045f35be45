//! Which pages of a space have changed since its last snapshot.
//!
//! The kernel remembers it between snapshots, in one of two ways ([`Kind`]), for as long as somebody holds a
//! descriptor of the tracker's. When that is closed, by whose death ever, nothing is known: all has changed.
//! Pages that are gone are not among those that there are.
//!
//! What a loan later in the same pause has the kernel write (rseq) counts as written next time; the kernel
//! makes it anew whenever a thread goes on.
//!
//! Not for memory that can change in other ways: shared memory, of which others have views, is none of a
//! space's own pages, and AIO, `io_uring` and devices, which pin pages, are refused.
pub(crate) mod soft_dirty;
pub(crate) mod write_protect;

use std::fmt::Debug;
use std::io;
use std::os::fd::OwnedFd;

pub use self::soft_dirty::Anchors;
use self::soft_dirty::SoftDirty;
use self::write_protect::WriteProtect;
use super::ahead::Ahead;
use super::estimate::is_twin_worth;
use super::pages::{Pages, USER};
use super::ranges::{Ranges, intersect, joined, length};
use crate::error::Result;
use crate::inventory::{Backing, Pid, SpaceId, Vma};

/// Watches over a space of the last snapshot.
#[derive(Debug)]
pub struct Tracker {
    /// Whose it is.
    pub pid: Pid,
    /// Which it was in that snapshot.
    pub space: SpaceId,
    /// How.
    pub kind: Kind,
    /// What it lasts as long as: a userfaultfd, or the space's pagemap.
    pub fd: OwnedFd,
    /// What is there that soft-dirty marks do not tell of.
    pub anchors: Anchors,
    /// What it has told since then, for an image that came to nothing: it will not tell it again.
    pub told: Told,
}

/// What the kernel remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Marks on pages that were written.
    SoftDirty,
    /// Pages that are still protected from writing.
    WriteProtect,
}

/// Pages that have changed.
#[derive(Debug, Clone, Default)]
pub struct Told(Ranges);

/// What a running process told.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// How many bytes it has written since the last snapshot, about.
    pub(super) changed: u64,
    /// Copies of them, as far as they are still what they were.
    pub(super) ahead: Ahead,
    /// See [`Method::look`].
    pub(super) had: Ranges,
}

/// Which pages of a space's own have changed.
#[derive(Debug)]
pub(super) struct Changed {
    /// Since the last snapshot.
    pub(super) since: Ranges,
    /// Since it was asked last, or more.
    pub(super) again: Ranges,
}

/// A way to know what has changed.
pub(crate) trait Method {
    /// Whether it is this process's memory still that is watched, and nobody has interfered.
    fn watches(&self, of: &Tracker) -> bool;
    /// The pages of a stopped process, and which of its own have changed since the last time, or more; from
    /// now on, it is since now.
    ///
    /// In `had` are pages that were there when it was asked while it ran.
    fn look(&self, of: &mut Tracker, vmas: &[Vma], had: &Ranges) -> Result<(Pages, Ranges)>;
    /// How many bytes of a running process were written since the last time, about.
    fn expected(&self, of: &Tracker) -> u64;
    /// Which pages of a running process these are, or more; from now on, it is since now. `None`: that can
    /// only be told of one that stands.
    fn so_far(&self, of: &Tracker) -> Option<SoFar>;
}

/// What a process has, and has written, while it ran.
#[derive(Debug)]
pub(crate) struct SoFar {
    written: Ranges,
    /// All pages of what is watched, as far as it is known.
    had: Ranges,
}

impl Kind {
    fn method(self) -> &'static dyn Method {
        match self {
            Self::SoftDirty => &SoftDirty,
            Self::WriteProtect => &WriteProtect,
        }
    }
}

impl Tracker {
    /// One that knows nothing yet.
    pub(crate) fn new(pid: Pid, space: SpaceId, kind: Kind, fd: OwnedFd) -> Self {
        let (anchors, told) = (Anchors::default(), Told(vec![(0, USER)]));
        Self { pid, space, kind, fd, anchors, told }
    }

    /// The same once more.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let (anchors, told) = (self.anchors.clone(), self.told.clone());
        Ok(Self { fd: self.fd.try_clone()?, anchors, told, ..*self })
    }

    /// Whether it still knows what has changed. A process that has executed another program is not watched.
    pub(crate) fn watches(&self) -> bool {
        self.kind.method().watches(self)
    }

    /// The pages of a stopped process, and which of them have changed; from now on, it is since now.
    pub(super) fn look(&mut self, vmas: &[Vma], before: &Asked) -> Result<(Pages, Changed)> {
        let (pages, mut again) = self.kind.method().look(self, vmas, &before.had)?;
        again.sort_unstable();
        let again = joined(&again);
        self.remember(&again);
        let since = intersect(&pages.own, &self.told.0);
        Ok((pages, Changed { since, again }))
    }

    /// Asks a running process that has so many bytes in all. Nothing is copied of one that will have a twin: it
    /// would have written most of it again.
    pub(super) fn ask(&mut self, all: u64) -> Asked {
        let changed = self.kind.method().expected(self);
        let nothing = Asked { changed, ..Asked::default() };
        if is_twin_worth(changed, all) {
            return nothing;
        }
        let Some(SoFar { written, had }) = self.kind.method().so_far(self) else { return nothing };
        self.remember(&written);
        let changed = length(&self.told.0) as u64;
        Asked { changed, ahead: Ahead::of(self.pid, &written), had }
    }

    fn remember(&mut self, pages: &Ranges) {
        let mut all = [&self.told.0[..], pages].concat();
        all.sort_unstable();
        self.told = Told(joined(&all));
    }
}

/// Pages of files are left out. One that was dropped (`MADV_DONTNEED`) stays protected, and a write that is
/// stopped between its two faults finds the file's contents in it, as if nobody had written:
/// `set_pte_range()` in the kernel's `mm/memory.c`.
fn can_be_watched(vma: &Vma) -> bool {
    !vma.shared && vma.backing == Backing::Anonymous
}

fn pagemap_of(pid: Pid) -> String {
    format!("/proc/{pid}/pagemap")
}
