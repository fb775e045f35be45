//! What the engine needs of kernel, machine and account, and what it would like: one table, which
//! `snapd doctor` prints. Each is tried, not guessed from a version, where trying harms nothing.
use std::cmp::Ordering;
use std::fs::File;
use std::os::fd::AsFd;

use crate::census::Census;
use crate::inventory::Pid;
use crate::sys::kcmp::{self, Shared};
use crate::sys::pagemap::{self, PRESENT, Region, Which};
use crate::sys::{kernel_at_least, pidfd, vdso};
use crate::tracee::vdso_image_end;

/// Something that is there or not.
#[derive(Debug, Clone, Copy)]
pub struct Feature {
    /// Stable, for scripts.
    pub name: &'static str,
    /// Nothing works without.
    pub needed: bool,
    /// What for.
    pub purpose: &'static str,
    /// What to do when it is not there.
    pub remedy: &'static str,
    probe: fn() -> bool,
}

impl Feature {
    /// Whether it is there.
    #[must_use]
    pub fn is_available(&self) -> bool {
        (self.probe)()
    }
}

const BECOME_ROOT: &str = "run snapd as root, with all capabilities";
const NEWER: &str = "use a kernel since 6.1";
/// Room that a cave takes, with some to spare (`remote`).
const CAVE_BYTES: usize = 640;

/// All of them, in the order in which they are shown.
pub const FEATURES: &[Feature] = &[
    needed("cap-sys-admin", "making namespaces, mapping shared areas", BECOME_ROOT, || {
        has_capability(21)
    }),
    needed("cap-sys-ptrace", "holding programs of other users", BECOME_ROOT, || has_capability(19)),
    needed("cap-checkpoint-restore", "choosing PIDs, setting executables", BECOME_ROOT, || {
        // Before 5.9 and without it, CAP_SYS_ADMIN stands for it.
        has_capability(40) || has_capability(21)
    }),
    needed("pid-namespaces", "PIDs that are free at every restore", NEWER, || namespace("pid")),
    needed("mount-namespaces", "a /proc of the workload's own", NEWER, || namespace("mnt")),
    needed("ipc-namespaces", "shared memory of the workload's own", NEWER, || namespace("ipc")),
    needed("time-namespaces", "clocks that go on from the snapshot", NEWER, || namespace("time")),
    needed("clone3-set-tid", "restoring PIDs and thread numbers", NEWER, || kernel_at_least(5, 5)),
    needed("pidfd-getfd", "reading what is behind descriptors", NEWER, || can_steal().is_some()),
    needed("kcmp", "telling which objects are shared", "use a kernel with CONFIG_KCMP", || {
        kcmp::shared(Shared::Space, Pid(own_pid()), Pid(own_pid())) == Ok(Ordering::Equal)
    }),
    needed("map-files", "opening what is mapped", BECOME_ROOT, can_open_map_files),
    needed("vdso-room", "system calls that survive our death", "use a kernel with a vdso", || {
        vdso().is_some_and(|bytes| {
            vdso_image_end(&bytes)
                .is_some_and(|end| bytes.len() - end.min(bytes.len()) >= CAVE_BYTES)
        })
    }),
    needed("rseq-configuration", "restartable sequences", NEWER, || kernel_at_least(5, 13)),
    liked(
        "pagemap-scan",
        "finding written pages in a millisecond",
        "use a kernel since 6.7",
        || can_scan().is_some(),
    ),
    liked(
        "soft-dirty",
        "tracking changed pages",
        "use a kernel with CONFIG_MEM_SOFT_DIRTY",
        has_soft_dirty,
    ),
    liked("write-protect", "tracking changed pages", "use a kernel since 6.7", || {
        kernel_at_least(6, 7) && std::path::Path::new("/dev/userfaultfd").exists()
            || kernel_at_least(6, 7) && std::path::Path::new(UNPRIVILEGED).exists()
    }),
    liked(
        "task-iterator",
        "short pauses of programs with many threads",
        "run snapd with all capabilities, on a kernel with CONFIG_DEBUG_INFO_BTF",
        || Census::prepare().is_some(),
    ),
    liked("timer-ids", "restoring POSIX timers at once", "use a kernel since 6.15", || {
        kernel_at_least(6, 15)
    }),
];

const UNPRIVILEGED: &str = "/proc/sys/vm/unprivileged_userfaultfd";

const fn needed(
    name: &'static str,
    purpose: &'static str,
    remedy: &'static str,
    probe: fn() -> bool,
) -> Feature {
    Feature { name, needed: true, purpose, remedy, probe }
}

const fn liked(
    name: &'static str,
    purpose: &'static str,
    remedy: &'static str,
    probe: fn() -> bool,
) -> Feature {
    Feature { needed: false, ..needed(name, purpose, remedy, probe) }
}

fn own_pid() -> i32 {
    nix::unistd::getpid().as_raw()
}

/// `CapEff` of `/proc/self/status`, by the numbers of `include/uapi/linux/capability.h`.
pub(crate) fn has_capability(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_some_and(|set| set >> number & 1 == 1)
}

fn namespace(kind: &str) -> bool {
    std::path::Path::new(&format!("/proc/self/ns/{kind}")).exists()
}

/// Takes a descriptor of our own, by the call that takes others'.
fn can_steal() -> Option<()> {
    use std::os::fd::AsRawFd;
    let us = pidfd::open(Pid(own_pid())).ok()?;
    pidfd::take(us.as_fd(), us.as_raw_fd()).ok().map(drop)
}

/// Whether what a process has mapped can be opened: tried on ourselves.
pub(crate) fn can_open_map_files() -> bool {
    let Ok(mut entries) = std::fs::read_dir("/proc/self/map_files") else { return false };
    entries.any(|entry| entry.is_ok_and(|entry| File::open(entry.path()).is_ok()))
}

fn can_scan() -> Option<()> {
    let pagemap = File::open("/proc/self/pagemap").ok()?;
    let mut room = [Region::default(); 1];
    let all = (0, 1 << 46);
    let which = Which { any: PRESENT, tell: PRESENT, ..Which::default() };
    pagemap::scan(pagemap.as_fd(), all, which, &mut room).ok().map(drop)
}

/// The entry of a page just written says so where the kernel keeps it.
pub(crate) fn has_soft_dirty() -> bool {
    is_fresh_marked().unwrap_or(false)
}

fn is_fresh_marked() -> Option<bool> {
    use std::os::unix::fs::FileExt;
    let fresh = Box::new([1_u8; 4096]);
    let address = std::hint::black_box(fresh.as_ptr()).addr() as u64;
    let pagemap = File::open("/proc/self/pagemap").ok()?;
    let mut entry = [0; 8];
    pagemap.read_exact_at(&mut entry, address / 4096 * 8).ok()?;
    Some(u64::from_ne_bytes(entry) & pagemap::entry::MARKED != 0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_feature_says_what_it_is_for_and_what_helps() {
        let names: BTreeSet<_> = FEATURES.iter().map(|feature| feature.name).collect();
        assert_eq!(names.len(), FEATURES.len());
        assert!(FEATURES.iter().all(|one| !one.purpose.is_empty() && !one.remedy.is_empty()));
    }

    /// The tests that follow need them all: this one says which is not there.
    #[test]
    fn what_is_needed_is_here() {
        let absent: Vec<_> =
            FEATURES.iter().filter(|one| one.needed && !one.is_available()).collect();
        assert!(absent.is_empty(), "{absent:?}");
    }
}
