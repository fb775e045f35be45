//! The two-letter `VmFlags` of smaps: which a restore acts on, which follow from others, which mean
//! that an area cannot be saved. One that is not here is refused: it would be lost.
//!
//! Kernel: `show_smap_vma_flags()` in `fs/proc/task_mmu.c`, since 6.18 with `gu`.
use crate::error::Cause;

/// Kept in images. `mw` tells whether it may be made writable, `ac` whether it is accounted for.
const KEPT: &[&str] = &[
    "ac", "dc", "dd", "dp", "gd", "hg", "ht", "lf", "lo", "mg", "mw", "nh", "nr", "rr", "sl", "sr",
    "wf",
];
/// Told by protection, sharing and file; dirtiness; what mmap(2) cannot ask for.
const IMPLIED: &[&str] = &["rd", "wr", "ex", "sh", "mr", "me", "ms", "sd", "de", "sf", "??", "gu"];

const DEVICE: Cause = Cause {
    code: "memory:device",
    reason: "it is a device's own memory",
    remedy: "have the program unmap it for the checkpoint",
};
const USERFAULTFD: Cause = Cause {
    code: "memory:userfaultfd",
    reason: "its faults are handled by a userfaultfd",
    remedy: "have the program unregister it for the checkpoint",
};
const SHADOW_STACK: Cause = Cause {
    code: "memory:shadow-stack",
    reason: "it is a shadow stack",
    remedy: "run the program with GLIBC_TUNABLES=glibc.cpu.hwcaps=-SHSTK",
};
const UNKNOWN: Cause = Cause {
    code: "memory:unknown-flag",
    reason: "the kernel says something of it that we do not understand",
    remedy: "report it, with the VmFlags of /proc/PID/smaps that are named",
};

/// Which of an area's flags an image keeps, sorted; or why it cannot be saved.
pub(crate) fn keep(flags: &[&str]) -> Result<Vec<String>, &'static Cause> {
    for flag in flags {
        match *flag {
            "io" | "pf" | "mm" | "ar" => return Err(&DEVICE),
            "um" | "uw" | "ui" => return Err(&USERFAULTFD),
            "ss" => return Err(&SHADOW_STACK),
            known if KEPT.contains(&known) || IMPLIED.contains(&known) => {}
            _ => return Err(&UNKNOWN),
        }
    }
    let mut kept: Vec<_> = flags.iter().filter(|flag| KEPT.contains(flag)).collect();
    kept.sort_unstable();
    Ok(kept.into_iter().map(|flag| (*flag).to_owned()).collect())
}

/// Whether a child that is forked may lack what lies in an area: it is not copied, or wiped; and huge
/// pages that run out are taken away from children.
pub(crate) fn stays(flags: &[&str]) -> bool {
    flags.iter().any(|flag| ["dc", "wf", "dp", "ht"].contains(flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unknown_and_the_impossible_are_refused() {
        assert_eq!(keep(&["rd", "wr", "mw", "ac"]).unwrap(), ["ac", "mw"]);
        assert_eq!(keep(&["rd", "pf", "io"]).unwrap_err().code, "memory:device");
        assert_eq!(keep(&["rd", "zz"]).unwrap_err().code, "memory:unknown-flag");
    }

    #[test]
    fn ours_are_all_known() {
        let text = std::fs::read_to_string("/proc/thread-self/smaps").unwrap();
        for area in crate::procfs::smaps::parse(&text).unwrap() {
            let special = area.name.starts_with("[v");
            assert!(special || keep(&area.flags).is_ok(), "{area:?}");
        }
    }
}
