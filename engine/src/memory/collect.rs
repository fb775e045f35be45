//! One address space, as the kernel shows it, as a record.
//!
//! Read while the process stands still and nobody borrows it: a loan adds an area. The files under
//! areas are opened through `/proc/PID/map_files`, which names the very inode also where the path
//! names another one by now; it takes `CAP_CHECKPOINT_RESTORE`.
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use nix::fcntl::{OFlag, open};
use nix::libc::PROT_EXEC;
use nix::sys::stat::Mode;

use super::ahead::Ahead;
use super::flags;
use super::foresight::Foresight;
use super::pages;
use super::ranges::{Ranges, without};
use super::tracker::write_protect::forget_watching;
use super::tracker::{Asked, Tracker};
use crate::error::{Cause, Error, Obstacle, Result, kernel, kernel_io};
use crate::inventory::{Backing, Layout, OpenFileId, Pid, Space, Special, Vma};
use crate::procfs;
use crate::procfs::smaps::{self, Area};
use crate::procfs::stat::Stat;

const SYSV: Cause = Cause {
    code: "memory:sysv-shm",
    reason: "it is System V shared memory",
    remedy: "have the program detach it for the checkpoint",
};
const AIO: Cause = Cause {
    code: "memory:aio",
    reason: "it is the ring of an AIO context",
    remedy: "have the program destroy the context for the checkpoint",
};
const PROBE: Cause = Cause {
    code: "memory:uprobes",
    reason: "somebody traces the program by uprobes",
    remedy: "end the tracing (perf, bpftrace)",
};
const SOCKET: Cause = Cause {
    code: "memory:packets",
    reason: "it is the ring of a packet socket or of perf events",
    remedy: "have the program unmap it for the checkpoint",
};
const KEY: Cause = Cause {
    code: "memory:protection-key",
    reason: "it is guarded by a protection key",
    remedy: "have the program free its keys for the checkpoint",
};
const CLOSED: Cause = Cause {
    code: "memory:closed",
    reason: "what is mapped cannot be opened again: it is secret memory, or its file forbids it",
    remedy: "have the program unmap it for the checkpoint",
};
const PAGE_SIZE: Cause = Cause {
    code: "memory:page-size",
    reason: "its huge pages are not of the default size",
    remedy: "use huge pages of 2 MiB",
};
const SPECIAL: Cause = Cause {
    code: "memory:special",
    reason: "it is an area of the kernel's that we do not know",
    remedy: "report it, with its line of /proc/PID/maps",
};

/// Who gives ids to the open files under areas.
pub(crate) trait Files {
    /// To one that we have opened on behalf of a process. The text is for people.
    fn opened(&mut self, pid: Pid, fd: OwnedFd, what: &str) -> Result<OpenFileId>;
    /// To one that was known before, and need not be opened.
    fn familiar(&mut self, pid: Pid, area: &Area<'_>) -> Result<Option<OpenFileId>>;
}

/// Which pages of a space are its own, and which of them it may share with whom it was forked from,
/// until one of them writes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Own {
    /// All, or all that may have changed since the last snapshot.
    pub(crate) pages: Ranges,
    /// Those that are as they were in the last snapshot.
    pub(crate) unchanged: Ranges,
    /// Those of `pages` that were copied before the pause.
    pub(crate) ahead: Ahead,
    /// Whole areas, in which there are some.
    pub(crate) shared: Ranges,
    /// Whole areas that a fork does not carry: a child has none of it, zeros, or perhaps no page left.
    pub(crate) stays: Ranges,
    /// The flags of its areas are yet to be confirmed.
    pub(crate) foreseen: bool,
}

/// Reads the space of a process; which pages are its own comes with it, and which of them have changed if
/// somebody watches.
pub(crate) fn space(
    pid: Pid,
    brk: u64,
    (foresight, tracker): (&Foresight, Option<&mut Tracker>),
    files: &mut dyn Files,
    obstacles: &mut Vec<Obstacle>,
) -> Result<(Space, Own)> {
    let text = |name: &str| procfs::text(format!("/proc/{pid}/{name}")).map_err(kernel_io("read"));
    let maps = if foresight.knows(pid) { text("maps")? } else { String::new() };
    let foreseen = foresight.areas(pid, &maps)?;
    let smaps = if foreseen.is_none() { text("smaps")? } else { String::new() };
    let is_foreseen = foreseen.is_some();
    let mut areas = foreseen.map_or_else(|| smaps::parse(&smaps), Ok)?;
    let mut reader = Reader { pid, files, obstacles, known: BTreeMap::new(), vmas: Vec::new() };
    let (mut shared, mut stays) = (Ranges::new(), Ranges::new());
    forget_watching(pid, &mut areas);
    for area in &areas {
        reader.area(area)?;
        if area.shared_kib > 0 {
            shared.push((area.start, area.end));
        }
        if flags::stays(&area.flags) {
            stays.push((area.start, area.end));
        }
    }
    let exe = file(&format!("/proc/{pid}/exe"), OFlag::O_RDONLY)?;
    let exe = reader.files.opened(pid, exe, "executable")?;
    let vmas = reader.vmas;
    let nothing = Asked::default();
    let before = foresight.asked(pid).unwrap_or(&nothing);
    let (pages, changed) = match tracker {
        Some(tracker) => {
            tracker.look(&vmas, before).map(|(pages, changed)| (pages, Some(changed)))?
        }
        None => (pages::of(pid, &vmas)?, None),
    };
    let auxv = procfs::bytes(format!("/proc/{pid}/auxv")).map_err(kernel_io("read"))?;
    let layout = Layout { words: Stat::parse(&text("stat")?)?.layout(brk)?, auxv };
    let vdso = vdso(pid, &vmas)?;
    let written = pages::of_files(&pages.own, &vmas);
    let own = match changed {
        Some(changed) => {
            let ahead = before.ahead.clone().without(&changed.again);
            let unchanged = without(&pages.own, &changed.since);
            Own { pages: changed.since, unchanged, ahead, ..Own::default() }
        }
        None => Own { pages: pages.own, ..Own::default() },
    };
    let (huge, guards) = (pages::huge(pid, &vmas)?, pages.guards);
    let own = Own { shared, stays, foreseen: is_foreseen, ..own };
    Ok((Space { vmas, layout, exe, vdso, written, guards, huge }, own))
}

/// That an area cannot be saved.
pub(super) fn refused(pid: Pid, area: &Area<'_>, cause: &Cause) -> Obstacle {
    let (start, end, name) = (area.start, area.end, area.name);
    let object = format!("area {start:x}-{end:x} {name} ({})", area.flags.join(" "));
    Obstacle { pid: Some(pid), object, cause: *cause }
}

/// The flags of an area that an image keeps.
pub(super) fn kept(backing: &Backing, area: &Area<'_>) -> Result<Vec<String>, &'static Cause> {
    match backing {
        Backing::Special(_) => Ok(Vec::new()), // They are what the kernel makes them.
        // Memory that may only be executed gets a key from the kernel, here and at a restore.
        _ if area.key != 0 && area.prot != PROT_EXEC => Err(&KEY),
        _ => flags::keep(&area.flags),
    }
}

/// Opens a link in /proc.
pub(crate) fn file(link: &str, access: OFlag) -> Result<OwnedFd> {
    let flags = access | OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    open(link, flags, Mode::empty()).map_err(kernel("open"))
}

fn vdso(pid: Pid, vmas: &[Vma]) -> Result<Vec<u8>> {
    let is = |vma: &&Vma| vma.backing == Backing::Special(Special::Vdso);
    let Some(vma) = vmas.iter().find(is) else { return Ok(Vec::new()) };
    let memory = fs::File::open(format!("/proc/{pid}/mem")).map_err(kernel_io("open"))?;
    let mut bytes = vec![0; usize::try_from(vma.end - vma.start).unwrap_or(0)];
    memory.read_exact_at(&mut bytes, vma.start).map_err(kernel_io("read"))?;
    Ok(bytes)
}

struct Reader<'a> {
    pid: Pid,
    files: &'a mut dyn Files,
    obstacles: &'a mut Vec<Obstacle>,
    /// By device, inode, name and whether it is open for writing.
    known: BTreeMap<(String, u64, String, bool), OpenFileId>,
    vmas: Vec<Vma>,
}

/// What lies under an area, by its name alone.
enum Sort<'a> {
    Skip,
    Special(Special),
    Anonymous(Option<&'a str>),
    File,
    Refused(&'static Cause),
}

fn sort<'a>(area: &Area<'a>) -> Sort<'a> {
    let huge = area.flags.contains(&"ht");
    match area.name {
        "[vsyscall]" => Sort::Skip,
        "[vdso]" => Sort::Special(Special::Vdso),
        "[vvar]" => Sort::Special(Special::Vvar),
        "[vvar_vclock]" => Sort::Special(Special::VvarVclock),
        "" | "[heap]" | "[stack]" if area.inode == 0 => Sort::Anonymous(None),
        "[uprobes]" => Sort::Refused(&PROBE),
        _ if huge && area.page_kib != 2048 => Sort::Refused(&PAGE_SIZE),
        "/anon_hugepage (deleted)" if huge && !area.shared => Sort::Anonymous(None),
        name if name.starts_with("/SYSV") => Sort::Refused(&SYSV),
        name if name.starts_with("/[aio]") => Sort::Refused(&AIO),
        name if name.starts_with("socket:") || name.starts_with("anon_inode:") => {
            Sort::Refused(&SOCKET)
        }
        name => match name.strip_prefix("[anon:").and_then(|rest| rest.strip_suffix(']')) {
            Some(own) => Sort::Anonymous(Some(own)),
            None if name.starts_with("[anon_shmem:") || area.inode != 0 => Sort::File,
            None => Sort::Refused(&SPECIAL),
        },
    }
}

impl Reader<'_> {
    fn area(&mut self, area: &Area<'_>) -> Result<()> {
        let (backing, name) = match sort(area) {
            Sort::Skip => return Ok(()),
            Sort::Refused(cause) => {
                self.refuse(area, cause);
                return Ok(());
            }
            Sort::Special(which) => (Backing::Special(which), None),
            Sort::Anonymous(name) => (Backing::Anonymous, name.map(str::to_owned)),
            Sort::File => {
                let shmem = area.name.strip_prefix("[anon_shmem:");
                let name = shmem.and_then(|rest| rest.strip_suffix(']')).map(str::to_owned);
                match flags::keep(&area.flags) {
                    Ok(_) => match self.file(area)? {
                        Some(backing) => (backing, name),
                        None => return Ok(()),
                    },
                    Err(cause) => {
                        self.refuse(area, cause);
                        return Ok(());
                    }
                }
            }
        };
        match kept(&backing, area) {
            Err(cause) => self.refuse(area, cause),
            Ok(flags) => {
                let &Area { start, end, prot, shared, .. } = area;
                self.vmas.push(Vma { start, end, prot, shared, backing, flags, name });
            }
        }
        Ok(())
    }

    fn refuse(&mut self, area: &Area<'_>, cause: &Cause) {
        self.obstacles.push(refused(self.pid, area, cause));
    }

    /// `None`: refused.
    fn file(&mut self, area: &Area<'_>) -> Result<Option<Backing>> {
        let writable = area.shared && area.flags.contains(&"mw");
        let key = (area.device.to_owned(), area.inode, area.name.to_owned(), writable);
        let open_file = if let Some(known) = self.known.get(&key) {
            *known
        } else if let Some(familiar) = self.files.familiar(self.pid, area)? {
            self.known.insert(key, familiar);
            familiar
        } else {
            let (pid, start, end) = (self.pid, area.start, area.end);
            let link = format!("/proc/{pid}/map_files/{start:x}-{end:x}");
            let access = if writable { OFlag::O_RDWR } else { OFlag::O_RDONLY };
            let opened = match file(&link, access) {
                Err(Error::Kernel(..)) => {
                    self.refuse(area, &CLOSED);
                    return Ok(None);
                }
                opened => opened?,
            };
            let found = self.files.opened(pid, opened, "mapping")?;
            self.known.insert(key, found);
            found
        };
        Ok(Some(Backing::File { open_file, offset: area.offset }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Opened(Vec<OwnedFd>);

    impl Files for Opened {
        fn opened(&mut self, _: Pid, fd: OwnedFd, _: &str) -> Result<OpenFileId> {
            self.0.push(fd);
            Ok(OpenFileId(u32::try_from(self.0.len()).unwrap()))
        }

        fn familiar(&mut self, _: Pid, _: &Area<'_>) -> Result<Option<OpenFileId>> {
            Ok(None)
        }
    }

    #[test]
    fn our_own_space() {
        let me = Pid(std::process::id().cast_signed());
        let (mut opened, mut obstacles) = (Opened::default(), Vec::new());
        let none = Foresight::default();
        let (space, own) = super::space(me, 7, (&none, None), &mut opened, &mut obstacles).unwrap();
        assert_eq!(obstacles, []);
        assert_eq!(space.vdso.get(..4), Some(&b"\x7fELF"[..]));
        assert_eq!(space.layout.words[5], 7);
        assert!(space.vmas.iter().any(|vma| vma.flags.contains(&"gd".to_owned())), "a stack");
        let code = |vma: &&Vma| matches!(vma.backing, Backing::File { .. }) && vma.prot & 4 != 0;
        assert!(space.vmas.iter().any(|vma| code(&vma)), "a text segment");
        let local = 5_u8;
        let at = (&raw const local).expose_provenance() as u64;
        assert!(own.pages.iter().any(|(start, end)| (*start..*end).contains(&at)), "our own stack");
    }

    #[test]
    fn what_cannot_be_saved_is_named() {
        let area = |name, inode| Area { inode, name, ..Area::default() };
        let code = |area: &Area<'_>| match sort(area) {
            Sort::Refused(cause) => cause.code,
            _ => "",
        };
        assert_eq!(code(&area("/SYSV00000001 (deleted)", 1)), "memory:sysv-shm");
        assert_eq!(code(&area("/[aio] (deleted)", 5)), "memory:aio");
        assert_eq!(code(&area("[uprobes]", 0)), "memory:uprobes");
        assert_eq!(code(&area("[future]", 0)), "memory:special");
        assert_eq!(code(&area("/bin/true", 3)), "");
    }
}
