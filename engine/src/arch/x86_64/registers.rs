//! General registers, and the rules by which the kernel makes interrupted calls again
//! (`arch/x86/kernel/signal.c`, `arch_do_signal_or_restart`).
use nix::libc;

use crate::thread::Registers;

/// Where in `struct user_regs_struct` a register is.
mod at {
    pub(super) const R15: usize = 0;
    pub(super) const RBX: usize = 5;
    pub(super) const R10: usize = 7;
    pub(super) const R8: usize = 9;
    pub(super) const RAX: usize = 10;
    pub(super) const RDX: usize = 12;
    pub(super) const RSI: usize = 13;
    pub(super) const RDI: usize = 14;
    pub(super) const ORIG_RAX: usize = 15;
    pub(super) const RIP: usize = 16;
    pub(super) const FLAGS: usize = 18;
    pub(super) const RSP: usize = 19;
}

/// What a call returns inside the kernel when it was interrupted (`include/linux/errno.h`).
const ERESTARTSYS: i64 = -512;
const ERESTARTNOINTR: i64 = -513;
const ERESTARTNOHAND: i64 = -514;
const ERESTART_RESTARTBLOCK: i64 = -516;
const EINTR: i64 = -(libc::EINTR as i64);
/// `arch/x86/entry/syscalls/syscall_64.tbl`, since 4.18; libc lacks it.
const IO_PGETEVENTS: i64 = 333;
/// `syscall` is two bytes long.
const SYSCALL_BYTES: u64 = 2;
/// `orig_rax` where the thread was not in a call.
const NO_CALL: u64 = u64::MAX;

/// The general registers of a thread, with names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RegisterFile(pub(crate) [u64; 27]);

/// What became of the system call in which a thread stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupted {
    /// It was in none, or the call is over.
    No,
    /// The kernel will make this call again.
    Again(i64),
    /// The kernel will go on with it by `restart_syscall(2)`: what is left is in `restart_block`.
    Resumes(i64),
    /// The call says EINTR merely because we stopped the thread (signal(7), "Interruption of system
    /// calls and library functions by stop signals", and what that list lacks).
    Plain(i64),
}

impl RegisterFile {
    fn get(&self, at: usize) -> u64 {
        self.0.get(at).copied().unwrap_or_default()
    }

    fn set(&mut self, at: usize, value: u64) {
        if let Some(word) = self.0.get_mut(at) {
            *word = value;
        }
    }

    /// The next instruction.
    pub(crate) fn instruction(&self) -> u64 {
        self.get(at::RIP)
    }

    /// The call it is in, if any.
    pub(crate) fn call(&self) -> Option<i64> {
        i32::try_from(self.get(at::ORIG_RAX).cast_signed()).ok().filter(|n| *n >= 0).map(i64::from)
    }

    /// What the call answered.
    pub(crate) fn answer(&self) -> i64 {
        self.get(at::RAX).cast_signed()
    }

    /// At a stop for a system call: it has not been made yet.
    pub(crate) fn is_entry(&self) -> bool {
        self.answer() == -i64::from(libc::ENOSYS)
    }

    /// An argument of the call.
    pub(crate) fn argument(&self, index: usize) -> u64 {
        let order = [at::RDI, at::RSI, at::RDX, at::R10, at::R8];
        order.get(index).map_or(0, |at| self.get(*at))
    }

    /// As at the entry to a call with these arguments.
    pub(crate) fn with_arguments(arguments: &[u64; 6]) -> Self {
        let mut file = Self::default();
        for (index, value) in arguments.iter().enumerate() {
            file.set_argument(index, *value);
        }
        file
    }

    /// Changes an argument.
    pub(crate) fn set_argument(&mut self, index: usize, value: u64) {
        let order = [at::RDI, at::RSI, at::RDX, at::R10, at::R8];
        if let Some(at) = order.get(index) {
            self.set(*at, value);
        }
    }

    /// Going on at `address`, in no call.
    pub(crate) fn jumping_to(mut self, address: u64) -> Self {
        self.set(at::RIP, address);
        self.set(at::ORIG_RAX, NO_CALL);
        self.set(at::RAX, 0);
        self
    }

    /// Staying in its call, but going on at `address`.
    pub(crate) fn moved_to(mut self, address: u64) -> Self {
        self.set(at::RIP, address);
        self
    }

    /// Staying interrupted, but in another call.
    pub(super) fn in_call(mut self, call: i64) -> Self {
        self.set(at::ORIG_RAX, call.cast_unsigned());
        self
    }

    /// The stack pointer.
    pub(crate) fn stack(&self) -> u64 {
        self.get(at::RSP)
    }

    /// What the cave keeps in rbx: the answer of its last call.
    pub(crate) fn cave_answer(&self) -> u64 {
        self.get(at::RBX)
    }

    /// Makes `call` again from the start.
    pub(super) fn again(mut self, call: i64) -> Self {
        self.set(at::RAX, call.cast_unsigned());
        self.set(at::RIP, self.instruction().wrapping_sub(SYSCALL_BYTES));
        self.set(at::ORIG_RAX, NO_CALL);
        self
    }

    /// What became of its call.
    pub(crate) fn interrupted(&self) -> Interrupted {
        let Some(call) = self.call() else { return Interrupted::No };
        match self.answer() {
            ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND => Interrupted::Again(call),
            ERESTART_RESTARTBLOCK => Interrupted::Resumes(call),
            EINTR if says_eintr_for_a_stop(call) => Interrupted::Plain(call),
            _ => Interrupted::No,
        }
    }

    /// Its call will be made again with the whole of its timeout.
    pub(crate) fn is_forgotten(&self) -> bool {
        matches!(self.interrupted(), Interrupted::Again(_))
    }

    /// With a plain EINTR turned into what the kernel itself restarts, unless a handler runs first:
    /// then the program sees its EINTR, as it would have without us.
    pub(crate) fn restarting(mut self) -> Self {
        if let Interrupted::Plain(_) = self.interrupted() {
            self.set(at::RAX, ERESTARTNOHAND.cast_unsigned());
        }
        self
    }

    /// What the kernel would do on the way back to the program, done by hand, for the same thread.
    pub(crate) fn by_hand(self) -> Self {
        match self.interrupted() {
            Interrupted::No => Self(self.0).out_of_call(),
            Interrupted::Again(call) | Interrupted::Plain(call) => self.again(call),
            Interrupted::Resumes(_) => self.again(libc::SYS_restart_syscall),
        }
    }

    /// Likewise, for another thread that is to go on in its place: `restart_block` stays behind.
    pub(crate) fn elsewhere(mut self) -> Self {
        match self.interrupted() {
            Interrupted::Resumes(libc::SYS_restart_syscall) => {
                self.set(at::RAX, EINTR.cast_unsigned());
                self.out_of_call()
            }
            Interrupted::Resumes(call) => self.again(call),
            _ => self.by_hand(),
        }
    }

    fn out_of_call(mut self) -> Self {
        self.set(at::ORIG_RAX, NO_CALL);
        self
    }

    /// In the order in which the way home loads them: r15 to rdi, rip, rsp, flags.
    pub(super) fn way_home(&self) -> [u64; 18] {
        let mut words = [0; 18];
        let general = self.0.iter().skip(at::R15).take(15).copied();
        let rest = [at::RIP, at::RSP, at::FLAGS].map(|at| self.get(at));
        for (word, value) in words.iter_mut().zip(general.chain(rest)) {
            *word = value;
        }
        words
    }
}

impl From<RegisterFile> for Registers {
    fn from(file: RegisterFile) -> Self {
        Self(file.0)
    }
}

/// Calls that answer EINTR when a tracer or job control merely stopped the thread, and that may be
/// made again without harm: they have done nothing yet. With socket calls it is those under
/// `SO_RCVTIMEO` or `SO_SNDTIMEO`, with read(2) also inotify(7).
pub(crate) fn says_eintr_for_a_stop(call: i64) -> bool {
    [
        libc::SYS_epoll_wait,
        libc::SYS_epoll_pwait,
        libc::SYS_epoll_pwait2,
        libc::SYS_semop,
        libc::SYS_semtimedop,
        libc::SYS_rt_sigtimedwait,
        libc::SYS_io_getevents,
        IO_PGETEVENTS,
        // Where the kernel could not note what is left.
        libc::SYS_ppoll,
        libc::SYS_pselect6,
        libc::SYS_select,
        libc::SYS_msgrcv,
        libc::SYS_msgsnd,
        libc::SYS_read,
        libc::SYS_readv,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_recvfrom,
        libc::SYS_recvmsg,
        libc::SYS_recvmmsg,
        libc::SYS_sendto,
        libc::SYS_sendmsg,
        libc::SYS_sendmmsg,
        libc::SYS_accept,
        libc::SYS_accept4,
        libc::SYS_connect,
    ]
    .contains(&call)
}

/// How a call is told how long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timeout {
    /// This argument, an int: milliseconds; negative: for ever.
    Milliseconds(usize),
    /// This argument points to a `struct timespec`; null: for ever.
    Timespec(usize),
    /// This argument points to a `struct timespec` in which the kernel notes what is left when the call
    /// is interrupted.
    Countdown(usize),
    /// Likewise, to a `struct timeval`.
    CountdownMicro(usize),
}

/// Whether `call` might have a relative timeout, or be one that had.
pub(crate) fn may_wait(call: i64) -> bool {
    call == libc::SYS_restart_syscall || RegisterFile::default().timeout(call).is_some()
}

impl RegisterFile {
    /// The relative timeout of `call`, where these are its arguments. Absolute ones need no care.
    pub(crate) fn timeout(&self, call: i64) -> Option<Timeout> {
        /// `FUTEX_CMD_MASK` of `include/uapi/linux/futex.h`; `FUTEX_WAIT` is 0.
        const FUTEX_COMMAND: u64 = 0x7f;
        match call {
            libc::SYS_epoll_wait | libc::SYS_epoll_pwait => Some(Timeout::Milliseconds(3)),
            libc::SYS_poll => Some(Timeout::Milliseconds(2)),
            libc::SYS_epoll_pwait2 | libc::SYS_semtimedop => Some(Timeout::Timespec(3)),
            libc::SYS_rt_sigtimedwait => Some(Timeout::Timespec(2)),
            libc::SYS_io_getevents | IO_PGETEVENTS => Some(Timeout::Timespec(4)),
            libc::SYS_ppoll => Some(Timeout::Countdown(2)),
            libc::SYS_pselect6 => Some(Timeout::Countdown(4)),
            libc::SYS_select => Some(Timeout::CountdownMicro(4)),
            libc::SYS_nanosleep => Some(Timeout::Timespec(0)),
            libc::SYS_clock_nanosleep if self.argument(1) & 1 == 0 => Some(Timeout::Timespec(2)),
            libc::SYS_futex if self.argument(1) & FUTEX_COMMAND == 0 => Some(Timeout::Timespec(3)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped_in(call: i64, answer: i64) -> RegisterFile {
        let mut file = RegisterFile::default();
        file.set(at::RIP, 0x1002);
        file.set(at::ORIG_RAX, call.cast_unsigned());
        file.set(at::RAX, answer.cast_unsigned());
        file
    }

    #[test]
    fn interrupted_calls_are_made_again() {
        let home = stopped_in(libc::SYS_pause, ERESTARTNOHAND).by_hand();
        assert_eq!((home.instruction(), home.answer()), (0x1000, libc::SYS_pause));
        assert_eq!(home.call(), None);
        let home = stopped_in(libc::SYS_nanosleep, ERESTART_RESTARTBLOCK).by_hand();
        assert_eq!((home.instruction(), home.answer()), (0x1000, libc::SYS_restart_syscall));
        let home = stopped_in(libc::SYS_nanosleep, ERESTART_RESTARTBLOCK).elsewhere();
        assert_eq!((home.instruction(), home.answer()), (0x1000, libc::SYS_nanosleep));
    }

    #[test]
    fn an_eintr_of_a_stop_is_restarted_and_any_other_is_kept() {
        let ours = stopped_in(libc::SYS_epoll_wait, EINTR);
        assert_eq!(ours.restarting().interrupted(), Interrupted::Again(libc::SYS_epoll_wait));
        let theirs = stopped_in(libc::SYS_close, EINTR);
        assert_eq!(theirs.restarting(), theirs);
        assert_eq!(theirs.by_hand().answer(), EINTR);
    }

    #[test]
    fn outside_of_calls_nothing_changes() {
        let mut file = stopped_in(-1, ERESTARTSYS);
        file.set(at::ORIG_RAX, NO_CALL);
        assert_eq!(file.by_hand(), file);
        assert_eq!(file.elsewhere(), file);
    }
}
