//! Threads that a tracer left behind inside its cave when it died.
//!
//! They are on their way home, and must not be steered before they are there: their present registers
//! are the cave's, not the program's.
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use super::procfs;
use crate::arch::{MAGIC_ANY, RegisterFile};
use crate::inventory::Pid;

/// No vdso is longer.
const VDSO_MAX: u64 = 64 << 10;
const PAGE: u64 = 4096;

/// Where the vdso of each process is, as far as asked; `None` if it is not where it was born: then the
/// cave may be anywhere.
#[derive(Debug, Default)]
pub(super) struct Walkout {
    vdso: BTreeMap<Pid, Option<u64>>,
}

impl Walkout {
    /// Looks up what will be needed of a process, before it is stopped. If it executes another program until
    /// then, nobody is in an old cave of that.
    pub(super) fn prepare(&mut self, pid: Pid) {
        self.vdso.entry(pid).or_insert_with(|| vdso(pid));
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
