//! The lines of `/proc/PID/status` that tell nothing of their own: counters, and what is read more
//! exactly elsewhere (`fs/proc/array.c`, `fs/proc/task_mmu.c`).
use crate::procfs::Fields;

/// By exact name. What an attribute claims of a process is of no interest in its threads' files.
const KNOWN: &[&str] = &[
    "Name", // The name attribute reads it from inside, without escapes.
    "State",
    "Umask",
    "Uid",
    "Gid",
    "Groups",
    "Seccomp",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "x86_Thread_features",
    "Tgid",
    "Ngid",
    "Pid",
    "PPid",
    "TracerPid",
    "FDSize",
    "NStgid",
    "NSpid",
    "NSpgid",
    "NSsid",
    "Kthread",
    "HugetlbPages",
    "CoreDumping",
    "THP_enabled",
    "untag_mask",
    "Threads",
    "SigQ",
    "SigPnd", // Signals come from ptrace(2), with all they carry.
    "ShdPnd",
    "SigBlk",
    "SigIgn",
    "SigCgt",
    "NoNewPrivs",
    "Seccomp_filters",
    "Speculation_Store_Bypass",
    "SpeculationIndirectBranch",
    "Cpus_allowed",
    "Cpus_allowed_list",
    "Mems_allowed",
    "Mems_allowed_list",
    "voluntary_ctxt_switches",
    "nonvoluntary_ctxt_switches",
    "x86_Thread_features_locked",
];
/// Sizes of memory in use.
const PREFIXES: &[&str] = &["Vm", "Rss"];

/// Claims them, whatever is left of the file.
pub(super) fn claim_the_rest(status: &mut Fields<'_>) {
    let sizes: Vec<_> = status
        .leftover()
        .filter(|key| PREFIXES.iter().any(|prefix| key.starts_with(prefix)))
        .collect();
    for key in KNOWN.iter().copied().chain(sizes) {
        status.take_all(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_knows_is_left() {
        let mut status = Fields::parse("Name:\tx\nVmRSS:\t1 kB\nFuture:\t7\n");
        claim_the_rest(&mut status);
        assert_eq!(status.leftover().collect::<Vec<_>>(), ["Future"]);
    }
}
