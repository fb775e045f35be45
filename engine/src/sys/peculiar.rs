//! What a thread may ask for that leaves no trace but a flag in the kernel: asked for ourselves, to see which.
use nix::errno::Errno;
use nix::libc;

/// `arch/x86/include/uapi/asm/prctl.h`: whether CPUID may be used, since 4.12.
const ARCH_SET_CPUID: i32 = 0x1012;
/// `PR_SPEC_L1D_FLUSH` and `PR_SPEC_PRCTL` of `include/uapi/linux/prctl.h`, since 5.14.
const L1D_FLUSH: i32 = 2;
const MAY_CHOOSE: i32 = 1;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peculiarity {
    /// To be killed at once when its memory is found broken.
    MachineCheck,
    /// The time stamp counter faults: until this ends, nothing may ask for the time without a call.
    NoTimeStamps,
    /// CPUID faults.
    NoProcessorNumber,
}

/// While this lives, the calling thread is peculiar.
#[derive(Debug)]
pub(crate) struct Peculiar(Peculiarity);

impl Peculiarity {
    pub(crate) const ALL: [Self; 3] =
        [Self::MachineCheck, Self::NoTimeStamps, Self::NoProcessorNumber];

    /// `None`: the kernel or the machine does not know that.
    pub(crate) fn begin(self) -> Option<Peculiar> {
        // Not `then_some`: what it would drop would have us become ordinary, and complain.
        self.set(true).then(|| Peculiar(self))
    }

    fn set(self, on: bool) -> bool {
        match self {
            Self::MachineCheck => {
                let [clear, set, early] =
                    [libc::PR_MCE_KILL_CLEAR, libc::PR_MCE_KILL_SET, libc::PR_MCE_KILL_EARLY];
                let (how, when) = if on { (set, early) } else { (clear, 0) };
                prctl(libc::PR_MCE_KILL, how, when) >= 0
            }
            Self::NoTimeStamps => {
                let how = if on { libc::PR_TSC_SIGSEGV } else { libc::PR_TSC_ENABLE };
                prctl(libc::PR_SET_TSC, how, 0) >= 0
            }
            Self::NoProcessorNumber => {
                let allowed = i32::from(!on);
                // SAFETY: the call takes numbers only, and concerns the calling thread, which does not use
                // CPUID until it is allowed again: only look-ups of what libraries do at their start would.
                unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_CPUID, allowed) == 0 }
            }
        }
    }
}

impl Drop for Peculiar {
    fn drop(&mut self) {
        if !self.0.set(false) {
            tracing::error!(peculiarity = ?self.0, "cannot become ordinary again");
        }
    }
}

fn prctl(option: i32, one: i32, other: i32) -> i32 {
    let [one, other] = [one, other].map(i64::from);
    // SAFETY: these options take numbers only, and concern the calling thread.
    unsafe { libc::prctl(option, one, other, 0, 0) }
}

/// Whether threads may have the first cache flushed when they are switched, on this machine.
pub(crate) fn may_flush_caches() -> bool {
    let told = prctl(libc::PR_GET_SPECULATION_CTRL, L1D_FLUSH, 0);
    told > 0 && told & MAY_CHOOSE != 0
}

/// Whether the kernel was built with policies for memory.
pub(crate) fn knows_memory_policies() -> bool {
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: without places to write to, the call writes nothing.
    let told = unsafe { libc::syscall(libc::SYS_get_mempolicy, nothing, nothing, 0, 0, 0) };
    Errno::result(told) != Err(Errno::ENOSYS)
}
