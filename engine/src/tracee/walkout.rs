//! Threads that a tracer left behind inside its cave when it died.
//!
//! They are on their way home, and must not be steered before they are there: their present registers
//! are the cave's, not the program's. Nor may they be interrupted before they have had a processor: on a busy
//! machine one would stop again and again where it stands, without a step in between.
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use super::procfs;
use crate::arch::{MAGIC_ANY, RegisterFile};
use crate::inventory::{Pid, Tid};
use crate::procfs::text;

/// No vdso is longer.
const VDSO_MAX: u64 = 64 << 10;
const PAGE: u64 = 4096;

/// Where the vdso of each process is, as far as asked; `None` if it is not where it was born: then the
/// cave may be anywhere.
#[derive(Debug, Default)]
pub(super) struct Walkout {
    vdso: BTreeMap<Pid, Option<u64>>,
    /// Those that were let go on, and how often each had had a processor before.
    going: BTreeMap<Tid, Option<u64>>,
}

impl Walkout {
    /// Looks up what will be needed of a process, before it is stopped. If it executes another program until
    /// then, nobody is in an old cave of that.
    pub(super) fn prepare(&mut self, pid: Pid) {
        self.vdso.entry(pid).or_insert_with(|| vdso(pid));
    }

    /// This one, which stands, is about to go on.
    pub(super) fn goes_on(&mut self, tid: Tid) {
        self.going.insert(tid, turns(tid));
    }

    /// Whether it has not had a processor since.
    pub(super) fn is_waited_for(&self, tid: Tid) -> bool {
        self.going.contains_key(&tid)
    }

    /// Those who have had one since, or are gone; each is named once.
    pub(super) fn have_gone_on(&mut self) -> Vec<Tid> {
        let has_gone_on =
            |(tid, before): &(&Tid, &Option<u64>)| before.is_none() || turns(**tid) != **before;
        let found: Vec<_> = self.going.iter().filter(has_gone_on).map(|(tid, _)| *tid).collect();
        found.iter().for_each(|tid| drop(self.going.remove(tid)));
        found
    }

    /// The process has another program now.
    pub(super) fn forget(&mut self, pid: Pid) {
        self.vdso.remove(&pid);
    }

    /// Whether a thread with these registers is inside an old cave.
    pub(super) fn is_inside(&mut self, pid: Pid, registers: &RegisterFile) -> bool {
        let instruction = registers.instruction();
        let vdso = *self.vdso.entry(pid).or_insert_with(|| vdso(pid));
        vdso.is_none_or(|start| (start..start + VDSO_MAX).contains(&instruction))
            && old_cave(pid, instruction).unwrap_or(false)
    }
}

/// How often it has had a processor: the third word of schedstat. `None`, where the kernel does not tell, or
/// says zero of everybody.
fn turns(tid: Tid) -> Option<u64> {
    let told = text(format!("/proc/{tid}/task/{tid}/schedstat")).ok()?;
    told.split_ascii_whitespace().nth(2)?.parse().ok().filter(|turns| *turns > 0)
}

fn vdso(pid: Pid) -> Option<u64> {
    let start = procfs::vdso(pid)?;
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut magic = [0; 4];
    memory.read_exact_at(&mut magic, start).ok()?;
    (&magic == b"\x7fELF").then_some(start)
}

/// A cave begins with its magic and extent; it does not cross pages.
fn old_cave(pid: Pid, instruction: u64) -> std::io::Result<bool> {
    let page = instruction & !(PAGE - 1);
    let mut bytes = vec![0; 4096];
    File::open(format!("/proc/{pid}/mem"))?.read_exact_at(&mut bytes, page)?;
    let inside = usize::try_from(instruction - page).unwrap_or_default();
    let extent = |start: usize| {
        let cave = bytes.get(start..).filter(|rest| rest.starts_with(MAGIC_ANY))?;
        let extent = cave.get(16..)?.first_chunk()?;
        usize::try_from(u64::from_ne_bytes(*extent)).ok()
    };
    let mut starts = (0..bytes.len()).step_by(16);
    Ok(starts.any(|at| extent(at).is_some_and(|extent| (at..at + extent).contains(&inside))))
}
