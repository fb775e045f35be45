//! An address space as data: its areas, its layout, its special mappings.
use crate::inventory::OpenFileId;

/// What lies under an area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backing {
    /// Private anonymous memory: all its pages are its own.
    Anonymous,
    /// A file or shared memory, mapped from `offset`. Private pages that were written are the
    /// space's own bytes; everything else is the object's.
    File {
        /// Opened by us through `/proc/PID/map_files` (shared anonymous memory is an object too).
        open_file: OpenFileId,
        /// Of the first byte.
        offset: u64,
    },
    /// `[vdso]`, `[vvar]`, `[vvar_vclock]`: the kernel's own, moved at a restore, never filled.
    Special(Special),
}

/// The kernel's own mappings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Special {
    /// Code.
    Vdso,
    /// Its data.
    Vvar,
    /// Its clock pages (6.12+).
    VvarVclock,
}

/// One area (`struct vm_area_struct`). `[vsyscall]` is not one: it is the kernel's, at a fixed place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vma {
    /// First byte.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// `PROT_*`.
    pub prot: i32,
    /// `MAP_SHARED` rather than private.
    pub shared: bool,
    /// What lies under it.
    pub backing: Backing,
    /// The two-letter `VmFlags` of smaps that a restore acts on, sorted (`gd lo ht nh dd dc wf ...`);
    /// what each means is the business of `memory/flags.rs`, which refuses unknown ones.
    pub flags: Vec<String>,
    /// `PR_SET_VMA_ANON_NAME`.
    pub name: Option<String>,
}

/// `struct prctl_mm_map`: what /proc and brk(2) go by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// `start_code end_code start_data end_data start_brk brk start_stack arg_start arg_end
    /// env_start env_end`, in the kernel's order.
    pub words: [u64; 11],
    /// The auxiliary vector.
    pub auxv: Vec<u8>,
}

/// One address space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// In ascending order.
    pub vmas: Vec<Vma>,
    /// The numbers.
    pub layout: Layout,
    /// `/proc/PID/exe`, opened by us.
    pub exe: OpenFileId,
    /// The vdso's bytes: after a kernel update they are another kernel's.
    pub vdso: Vec<u8>,
    /// Pages of private file mappings that were written: zeros in them are no holes, through which
    /// the file would show.
    pub written: Vec<(u64, u64)>,
    /// Ranges that fault when touched (`MADV_GUARD_INSTALL`), ascending.
    pub guards: Vec<(u64, u64)>,
    /// Ranges that were in huge pages where the program wants them (`MADV_HUGEPAGE`), ascending. How much of
    /// it can be had in them again is the kernel's business.
    pub huge: Vec<(u64, u64)>,
}
