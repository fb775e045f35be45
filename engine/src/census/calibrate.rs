//! Which bits of a thread's flags mean what: found by setting them for ourselves and looking.
//!
//! The kernel describes its fields, but not the numbers of its flags, which change between versions.
use super::{Fact, Row};
use crate::procfs::{self, stat::IO_FLUSHER};
use crate::sys::peculiar::{self, Peculiarity};

/// Whether a field may be absent, because nobody has what it holds on this kernel.
pub(super) fn is_unknown(path: &str) -> bool {
    match path {
        "cgroups" => procfs::text("/proc/self/cgroup").is_err(),
        "mempolicy" => !peculiar::knows_memory_policies(),
        "thread.features" => {
            let status = procfs::text("/proc/self/status");
            status.is_ok_and(|status| !status.contains("x86_Thread_features"))
        }
        _ => false,
    }
}

/// The flags that matter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Marks {
    flags: u64,
    info: u64,
}

impl Marks {
    /// Tries each peculiarity that the kernel knows; `look` shows ourselves.
    pub(super) fn find(mut look: impl FnMut() -> Option<Row>) -> Option<Self> {
        if peculiar::may_flush_caches() {
            return None; // It cannot be tried without a switch of the whole machine.
        }
        // The one flag of which /proc tells, so that its number stays.
        let mut marks = Self { flags: IO_FLUSHER, ..Self::default() };
        for one in Peculiarity::ALL {
            let before = look()?;
            let Some(peculiar) = one.begin() else { continue };
            let during = look()?;
            drop(peculiar);
            let (fact, mark) = match one {
                Peculiarity::MachineCheck => (Fact::Flags, &mut marks.flags),
                Peculiarity::NoTimeStamps | Peculiarity::NoProcessorNumber => {
                    (Fact::InfoFlags, &mut marks.info)
                }
            };
            // Too many do no harm: other flags come and go.
            let risen = during.fact(fact) & !before.fact(fact) & !look()?.fact(fact);
            if risen == 0 {
                return None;
            }
            *mark |= risen;
        }
        Some(marks)
    }

    /// Leaves only them.
    pub(super) fn apply(&self, row: &mut Row) {
        row.keep(Fact::Flags, self.flags);
        row.keep(Fact::InfoFlags, self.info);
    }
}
