//! Objects that no kind claims: each refused by its own name.
use crate::error::Cause;
use crate::object::Evidence;

const fn unsupported(code: &'static str, reason: &'static str) -> Cause {
    Cause { code, reason, remedy: "let the program close it for the checkpoint; see SUPPORT.md" }
}

/// By how the link in `/proc/PID/fd` starts.
const KNOWN: &[(&str, Cause)] = &[
    ("anon_inode:[io_uring]", unsupported("io_uring:unsupported", "it is an io_uring")),
    ("anon_inode:[userfaultfd]", unsupported("userfaultfd:unsupported", "it is a userfaultfd")),
    ("anon_inode:inotify", unsupported("inotify:unsupported", "it watches files by inotify(7)")),
    ("anon_inode:[fanotify]", unsupported("fanotify:unsupported", "it watches by fanotify(7)")),
    ("anon_inode:[pidfd]", unsupported("pidfd:unsupported", "it is a handle of a process")),
    ("pidfd:", unsupported("pidfd:unsupported", "it is a handle of a process")),
    ("anon_inode:[perf_event]", unsupported("perf_event:unsupported", "it counts events")),
    ("anon_inode:bpf-", unsupported("bpf:unsupported", "it is a bpf(2) object")),
    ("anon_inode:kvm-", unsupported("kvm:unsupported", "it is a virtual machine")),
    ("anon_inode:[landlock-ruleset]", unsupported("landlock:unsupported", "it is a rule set")),
    ("anon_inode:[seccomp notify]", unsupported("seccomp:notify", "it judges system calls")),
    ("anon_inode:[fscontext]", unsupported("fscontext:unsupported", "it is a mount in the making")),
    ("mqueue:", unsupported("mqueue:unsupported", "it is a message queue")),
    ("socket:", unsupported("socket:unsupported", "it is a socket of a family not supported")),
    ("net:", unsupported("namespace:unsupported", "it is a handle of a namespace")),
    ("mnt:", unsupported("namespace:unsupported", "it is a handle of a namespace")),
    ("pid:", unsupported("namespace:unsupported", "it is a handle of a namespace")),
    ("user:", unsupported("namespace:unsupported", "it is a handle of a namespace")),
    ("uts:", unsupported("namespace:unsupported", "it is a handle of a namespace")),
    ("ipc:", unsupported("namespace:unsupported", "it is a handle of a namespace")),
    ("time:", unsupported("namespace:unsupported", "it is a handle of a namespace")),
    ("cgroup:", unsupported("namespace:unsupported", "it is a handle of a namespace")),
    ("/secretmem", unsupported("secretmem:unsupported", "it is secret even from the kernel")),
    ("/dev/", unsupported("device:unsupported", "it is a device whose state is unknown to us")),
    ("/SYSV", unsupported("sysv_shm:unsupported", "it is System V shared memory")),
];

const OTHER: Cause = unsupported("object:unknown", "it is of a kind that is not known");

/// Why this object is in the way.
pub(super) fn cause(seen: &Evidence) -> &'static Cause {
    let known = KNOWN.iter().find(|(start, _)| seen.is_called(start));
    known.map_or(&OTHER, |(_, cause)| cause)
}
