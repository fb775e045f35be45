//! A stub for who waits to receive, from a socket that limits that (`SO_RCVTIMEO`).
//!
//! Made again, such a call would wait its whole timeout anew, and it is the socket's, not an argument to
//! shorten. So the thread waits the rest in poll(2), and then makes its call again, or is told EAGAIN as if
//! it had. The registers that poll(2) needs get their values back; the flags are never touched.
use super::registers::RegisterFile;
use nix::libc;

/// How long such a stub is: two of the others.
pub(crate) const BYTES: usize = 128;
/// One past the last instruction.
pub(crate) const CODE_END: u64 = 58;
/// Behind the `syscall`: where a thread is that waits.
pub(crate) const WAITING: u64 = 2;

/// Up to the number of the call.
const BEFORE_CALL: [u8; 35] = [
    0x0f, 0x05, // syscall: poll
    0x48, 0x8b, 0x3d, 55, 0, 0, 0, // mov rdi, [rip + 55]
    0x48, 0x8b, 0x35, 56, 0, 0, 0, // mov rsi, [rip + 56]
    0x48, 0x8b, 0x15, 57, 0, 0, 0, // mov rdx, [rip + 57]
    0x89, 0xc1, // mov ecx, eax
    0x67, 0xe3, 17, // jecxz: nothing came in time
    0x8d, 0x48, 0x04, // lea ecx, [rax + 4]
    0x67, 0xe3, 18,   // jecxz: EINTR, for a handler has run
    0xb8, // mov eax, the call
];
/// Behind it.
const BEHIND_CALL: [u8; 25] = [
    0xff, 0x25, 43, 0, 0, 0, // jmp [rip + 43]: to the program's own syscall
    0x48, 0xc7, 0xc0, 0xf5, 0xff, 0xff, 0xff, // mov rax, -EAGAIN
    0xff, 0x25, 38, 0, 0, 0, // jmp [rip + 38]: behind it
    b'r', b'e', b'c', b'e', b'i', b'v',
];

/// What a stub holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReceiveStub {
    /// Which call.
    pub(crate) call: i32,
    /// Its first three arguments.
    pub(crate) arguments: [u64; 3],
    /// Behind the program's own `syscall`.
    pub(crate) home: u64,
    /// When the wait ends, by `CLOCK_MONOTONIC`, in nanoseconds.
    pub(crate) deadline: i64,
    /// Where what poll(2) writes to is: below the thread's stack.
    pub(crate) entry: u64,
    /// Whose.
    pub(crate) tid: i32,
}

impl ReceiveStub {
    /// As it lies in memory.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = [&BEFORE_CALL[..], &self.call.to_le_bytes(), &BEHIND_CALL].concat();
        let [rdi, rsi, rdx] = self.arguments;
        let deadline = self.deadline.cast_unsigned();
        for word in [rdi, rsi, rdx, self.home.wrapping_sub(2), self.home, deadline, self.entry] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(self.tid.to_le_bytes());
        bytes.extend(self.call.to_le_bytes());
        bytes
    }

    /// What lies there, if it is such a stub.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let half = |at: usize| Some(i32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let stub = Self {
            call: half(124)?,
            arguments: [word(64)?, word(72)?, word(80)?],
            home: word(96)?,
            deadline: word(104)?.cast_signed(),
            entry: word(112)?,
            tid: half(120)?,
        };
        bytes.starts_with(&stub.encode()).then_some(stub)
    }

    /// What poll(2) is to look at, at [`Self::entry`]: `struct pollfd`.
    pub(crate) fn polled(&self) -> [u8; 8] {
        let [fd, ..] = self.arguments;
        ((fd & 0xffff_ffff) | u64::from(libc::POLLIN.unsigned_abs()) << 32).to_le_bytes()
    }

    /// The registers of a thread that is interrupted in the stub at `address`, with so much time left.
    pub(crate) fn inside(&self, raw: RegisterFile, address: u64, ms: i32) -> RegisterFile {
        let mut registers = raw.moved_to(address + WAITING).in_call(libc::SYS_poll);
        for (index, value) in [self.entry, 1, ms.unsigned_abs().into()].into_iter().enumerate() {
            registers.set_argument(index, value);
        }
        registers
    }
}

/// Whether `call` may receive from a socket, and could be made again after poll(2).
pub(crate) fn may_receive(call: i64) -> bool {
    [
        libc::SYS_read,
        libc::SYS_readv,
        libc::SYS_recvfrom,
        libc::SYS_recvmsg,
        libc::SYS_recvmmsg,
        libc::SYS_accept,
        libc::SYS_accept4,
    ]
    .contains(&call)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stub_is_told_from_other_bytes() {
        let arguments = [1, 2, 3];
        let stub = ReceiveStub { call: 45, arguments, home: 4, deadline: 5, entry: 6, tid: 7 };
        let bytes = stub.encode();
        assert_eq!((bytes.len(), ReceiveStub::decode(&bytes)), (BYTES, Some(stub)));
        assert_eq!(ReceiveStub::decode(&[0; BYTES]), None);
        assert_eq!(stub.polled(), [1, 0, 0, 0, 1, 0, 0, 0]);
    }
}
