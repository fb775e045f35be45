//! Signals that wait in a stopped tracee's queues.
use nix::errno::Errno;
use nix::{Result, libc};

/// Which queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queue {
    /// Of the thread.
    Private,
    /// Of its process.
    Shared,
}

/// `PTRACE_PEEKSIGINFO_SHARED` of `include/uapi/linux/ptrace.h`, since 3.10.
const PEEK_SHARED: u32 = 1;
/// How many are read at once.
const WINDOW: i32 = 32;

/// `struct ptrace_peeksiginfo_args`.
#[repr(C)]
struct PeekArgs {
    offset: u64,
    flags: u32,
    count: i32,
}
const _: () = assert!(size_of::<PeekArgs>() == 16);
const _: () = assert!(size_of::<libc::siginfo_t>() == 128);

/// All signals in a queue of the stopped tracee `tid`, in order, as raw `siginfo_t`.
pub(crate) fn pending(tid: i32, queue: Queue) -> Result<Vec<Vec<u8>>> {
    let flags = if queue == Queue::Shared { PEEK_SHARED } else { 0 };
    let mut all = Vec::new();
    loop {
        let args = PeekArgs { offset: all.len() as u64, flags, count: WINDOW };
        let window = peek(tid, &args)?;
        if window.is_empty() {
            return Ok(all);
        }
        all.extend(window);
    }
}

fn peek(tid: i32, args: &PeekArgs) -> Result<Vec<Vec<u8>>> {
    let mut room = [[0u8; 128]; WINDOW as usize];
    // SAFETY: the kernel reads one `PeekArgs` at `args` and writes at most `args.count` siginfo_t of
    // 128 bytes to `room`, which has room for WINDOW of them; both outlive the call.
    let seen = Errno::result(unsafe {
        libc::ptrace(libc::PTRACE_PEEKSIGINFO, tid, std::ptr::from_ref(args), room.as_mut_ptr())
    })?;
    let seen = usize::try_from(seen).unwrap_or_default();
    Ok(room.iter().take(seen).map(|info| info.to_vec()).collect())
}
