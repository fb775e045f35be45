//! The calls that make an area of memory what it was: where, of what, with which advice.
//!
//! Areas that were writable once are mapped writable until they are filled: the kernel then accounts
//! for them as it did (`VM_ACCOUNT`, `ac`), and neighbours merge or not as they did. Reservations
//! that never were stay so, at no cost. Kernel: mmap(2), madvise(2), mlock2(2), mseal(2),
//! `PR_SET_VMA`, `fs/proc/task_mmu.c` for the letters.
use nix::libc::{
    self, MAP_ANONYMOUS, MAP_FIXED, MAP_GROWSDOWN, MAP_HUGETLB, MAP_NORESERVE, MAP_PRIVATE,
    MAP_SHARED, PROT_WRITE,
};

use crate::inventory::{Backing, Vma};
use crate::remote::{Arg, Batch, RemoteFd};

/// `MADV_*` by the letters of smaps; forking and wiping are last, they change what forks see.
const ADVICE: [(&str, i32); 8] = [
    ("sr", libc::MADV_SEQUENTIAL),
    ("rr", libc::MADV_RANDOM),
    ("dd", libc::MADV_DONTDUMP),
    ("mg", libc::MADV_MERGEABLE),
    ("hg", libc::MADV_HUGEPAGE),
    ("nh", libc::MADV_NOHUGEPAGE),
    ("dc", libc::MADV_DONTFORK),
    ("wf", libc::MADV_WIPEONFORK),
];
/// `include/uapi/linux/mman.h`, since 6.11.
const MAP_DROPPABLE: i32 = 0x08;
/// `include/uapi/asm-generic/mman-common.h`, since 6.13.
const MADV_GUARD_INSTALL: i32 = 102;
const MADV_GUARD_REMOVE: i32 = 103;
/// `arch/x86/entry/syscalls/syscall_64.tbl`, since 6.10.
const SYS_MSEAL: i64 = 462;
/// `include/uapi/linux/prctl.h`, since 5.17.
const PR_SET_VMA: i32 = 0x5356_4d41;
const PR_SET_VMA_ANON_NAME: i32 = 0;
/// `MLOCK_ONFAULT` of `include/uapi/asm-generic/mman-common.h`.
const MLOCK_ONFAULT: i32 = 1;

fn has(vma: &Vma, letters: &str) -> bool {
    vma.flags.iter().any(|flag| flag == letters)
}

fn place(vma: &Vma) -> [Arg; 2] {
    [vma.start, vma.end - vma.start].map(|word| word.cast_signed().into())
}

/// Whether it is mapped with another protection until it is filled.
fn opened(vma: &Vma) -> bool {
    !vma.shared && vma.prot & PROT_WRITE == 0 && has(vma, "ac")
}

/// Maps it; `file` is the blank's number for what lies under it.
pub(crate) fn map(vma: &Vma, file: Option<RemoteFd>, batch: &mut Batch) {
    let prot = if opened(vma) { vma.prot | PROT_WRITE } else { vma.prot };
    // What may be dropped is a type of its own, in place of private.
    let private = if has(vma, "dp") { MAP_DROPPABLE } else { MAP_PRIVATE };
    let mut flags = MAP_FIXED | if vma.shared { MAP_SHARED } else { private };
    for (letters, flag) in [("gd", MAP_GROWSDOWN), ("nr", MAP_NORESERVE)] {
        flags |= if has(vma, letters) { flag } else { 0 };
    }
    let (fd, offset) = if let (Backing::File { offset, .. }, Some(fd)) = (&vma.backing, file) {
        (fd.0, *offset)
    } else {
        flags |= MAP_ANONYMOUS | if has(vma, "ht") { MAP_HUGETLB } else { 0 };
        (-1, 0)
    };
    let [start, len] = place(vma);
    let args = [start, len, prot.into(), flags.into(), fd.into(), offset.cast_signed().into()];
    batch.call("mmap", libc::SYS_mmap, args);
}

/// Makes a range fault when it is touched, or no longer.
pub(crate) fn guard((start, end): (u64, u64), on: bool, batch: &mut Batch) {
    let advice = if on { MADV_GUARD_INSTALL } else { MADV_GUARD_REMOVE };
    let [start, len] = [start, end - start].map(|word| Arg::from(word.cast_signed()));
    batch.call("madvise", libc::SYS_madvise, [start, len, advice.into()]);
}

/// Has what is filled into a range take huge pages. Its area has the same advice in the end.
pub(crate) fn huge((start, end): (u64, u64), batch: &mut Batch) {
    let [start, len] = [start, end - start].map(|word| Arg::from(word.cast_signed()));
    batch.call("madvise", libc::SYS_madvise, [start, len, libc::MADV_HUGEPAGE.into()]);
}

/// What comes after it is filled.
pub(crate) fn finish(vma: &Vma, batch: &mut Batch) {
    if opened(vma) {
        let [start, len] = place(vma);
        batch.call("mprotect", libc::SYS_mprotect, [start, len, vma.prot.into()]);
    }
    for (_, advice) in ADVICE.iter().filter(|(flag, _)| has(vma, flag)) {
        let [start, len] = place(vma);
        batch.call("madvise", libc::SYS_madvise, [start, len, (*advice).into()]);
    }
    if has(vma, "lo") || has(vma, "lf") {
        let [start, len] = place(vma);
        let flags = if has(vma, "lf") { MLOCK_ONFAULT } else { 0 };
        batch.call("mlock2", libc::SYS_mlock2, [start, len, flags.into()]);
    }
    if let Some(name) = &vma.name {
        let [start, len] = place(vma);
        let name = Arg::In([name.as_bytes(), b"\0"].concat());
        let what = [PR_SET_VMA.into(), PR_SET_VMA_ANON_NAME.into()];
        let [option, kind] = what;
        batch.call("prctl", libc::SYS_prctl, [option, kind, start, len, name]);
    }
    if has(vma, "sl") {
        let [start, len] = place(vma);
        batch.call("mseal", SYS_MSEAL, [start, len, 0.into()]);
    }
}

/// Whether a child that was forked from a parent with this area has it too, contents and all.
pub(crate) fn inherited(vma: &Vma) -> bool {
    !has(vma, "dc") && !has(vma, "wf") && !has(vma, "sl") && !has(vma, "lo") && !has(vma, "lf")
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::libc::{PROT_NONE, PROT_READ};

    fn vma(prot: i32, flags: &[&str]) -> Vma {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let (start, end) = (0x1000, 0x3000);
        Vma { start, end, prot, shared: false, backing: Backing::Anonymous, flags, name: None }
    }

    fn calls(vma: &Vma) -> Vec<(&'static str, Vec<Arg>)> {
        let mut batch = Batch::default();
        map(vma, None, &mut batch);
        finish(vma, &mut batch);
        batch.0.into_iter().map(|call| (call.name, call.args)).collect()
    }

    #[test]
    fn what_was_writable_once_is_accounted_for() {
        let calls = calls(&vma(PROT_READ, &["ac", "rd"]));
        assert_eq!(calls.iter().map(|call| call.0).collect::<Vec<_>>(), ["mmap", "mprotect"]);
        assert_eq!(calls[0].1[2], Arg::from(PROT_READ | PROT_WRITE));
        assert_eq!(calls[1].1[2], Arg::from(PROT_READ));
    }

    #[test]
    fn what_may_be_dropped_is_not_private() {
        let calls = calls(&vma(PROT_READ, &["dp", "nr"]));
        assert_eq!(
            calls[0].1[3],
            Arg::from(MAP_FIXED | MAP_DROPPABLE | MAP_NORESERVE | MAP_ANONYMOUS)
        );
    }

    #[test]
    fn reservations_cost_nothing() {
        let calls = calls(&vma(PROT_NONE, &["nr"]));
        assert_eq!(calls.len(), 1);
        assert_eq!(calls[0].1[2], Arg::from(PROT_NONE));
        let flags = MAP_FIXED | MAP_PRIVATE | MAP_NORESERVE | MAP_ANONYMOUS;
        assert_eq!(calls[0].1[3], Arg::from(flags));
    }
}
