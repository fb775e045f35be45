//! A stub: makes a call with a shorter timeout, then puts the register back that said so.
//!
//! A thread that we interrupted in `epoll_wait(2)` and its like would wait its whole timeout anew. It waits
//! the rest in a stub instead, beside the cave. System calls keep all registers but rax, rcx and r11, so
//! when it leaves, everything is as the program expects. The stub says until when, for the next tracer.
use crate::thread::Registers;

use super::registers::RegisterFile;

/// How long a stub is.
pub(crate) const BYTES: usize = 64;
/// Behind the `syscall`: where a thread is that waits.
pub(crate) const WAITING: u64 = 2;
/// One past the last instruction.
pub(crate) const CODE_END: u64 = 15;
/// Offset of the timespec.
pub(crate) const REST: u64 = 40;

const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// `mov REGISTER, [rip + 7]`, for the registers of the arguments 0 to 4: to `original`.
const LOADS: [[u8; 3]; 5] = [
    [0x48, 0x8b, 0x3d],
    [0x48, 0x8b, 0x35],
    [0x48, 0x8b, 0x15],
    [0x4c, 0x8b, 0x15],
    [0x4c, 0x8b, 0x05],
];
const TO_ORIGINAL: [u8; 4] = 7u32.to_le_bytes();
/// `jmp [rip + 9]`: to `home`.
const JUMP_HOME: [u8; 6] = [0xff, 0x25, 9, 0, 0, 0];
/// Tells a stub from other bytes.
const MARK: u8 = 0x5d;

/// What a stub holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stub {
    /// Which argument is the timeout.
    pub(crate) argument: usize,
    /// What it was.
    pub(crate) original: u64,
    /// Behind the program's own `syscall`.
    pub(crate) home: u64,
    /// When the wait ends, by `CLOCK_MONOTONIC`, in nanoseconds.
    pub(crate) deadline: i64,
    /// What is left, as a timespec, for calls that want one.
    pub(crate) rest: [i64; 2],
    /// Whose.
    pub(crate) tid: i32,
    /// Which call.
    pub(crate) call: i32,
}

impl Stub {
    /// As it lies in memory.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let load = LOADS.get(self.argument).copied().unwrap_or_default();
        let mut bytes = [&SYSCALL[..], &load, &TO_ORIGINAL, &JUMP_HOME, &[MARK]].concat();
        let deadline = self.deadline.cast_unsigned();
        let [seconds, nanoseconds] = self.rest.map(i64::cast_unsigned);
        for word in [self.original, self.home, deadline, seconds, nanoseconds] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(self.tid.to_le_bytes());
        bytes.extend(self.call.to_le_bytes());
        bytes
    }

    /// What lies there, if it is a stub.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let half = |at: usize| Some(i32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let argument = LOADS.iter().position(|load| bytes.get(2..5) == Some(load))?;
        let stub = Self {
            argument,
            original: word(16)?,
            home: word(24)?,
            deadline: word(32)?.cast_signed(),
            rest: [word(40)?.cast_signed(), word(48)?.cast_signed()],
            tid: half(56)?,
            call: half(60)?,
        };
        bytes.starts_with(&stub.encode()).then_some(stub)
    }
}

/// The registers of a thread that is about to wait in the stub at `address`.
pub(crate) fn waiting(raw: RegisterFile, address: u64, stub: &Stub, timeout: u64) -> Registers {
    let mut registers = raw.moved_to(address + WAITING);
    registers.set_argument(stub.argument, timeout);
    registers.again(stub.call.into()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stub_is_told_from_other_bytes() {
        let rest = [1, 2];
        for argument in 0..LOADS.len() {
            let stub = Stub { argument, original: 3, home: 4, deadline: 5, rest, tid: 6, call: 7 };
            let bytes = stub.encode();
            assert_eq!((bytes.len(), Stub::decode(&bytes)), (BYTES, Some(stub)));
        }
        assert_eq!(Stub::decode(&[0; BYTES]), None);
    }
}
