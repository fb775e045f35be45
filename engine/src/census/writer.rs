//! Programs for the kernel in the making: each copies what it is shown to a row, and hands the row out.
//!
//! What is copied is read by `bpf_probe_read_kernel()`, which leaves zeros where it cannot, so that no kernel's
//! verifier has an opinion on types; what is fetched takes a tenth of that, and the verifier knows its type.
use super::btf::Place;
use crate::sys::bpf::Instruction;

/// Registers: the answer of calls, their arguments, what calls keep, and the end of the stack.
pub(super) const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
pub(super) const CONTEXT: u8 = 6;
pub(super) const TASK: u8 = 7;
pub(super) const R8: u8 = 8;
pub(super) const R9: u8 = 9;
pub(super) const STACK: u8 = 10;

/// `enum bpf_func_id`.
pub(super) const GET_CURRENT_PID_TGID: i32 = 14;
const PROBE_READ_KERNEL: i32 = 113;
const SEQ_WRITE: i32 = 127;

/// Opcodes of `include/uapi/linux/bpf.h` and `bpf_common.h`.
pub(super) mod op {
    pub(in crate::census) const LOAD: u8 = 0x79;
    pub(in crate::census) const LOAD_HALF: u8 = 0x61;
    pub(super) const LOAD_QUARTER: u8 = 0x69;
    pub(in crate::census) const STORE: u8 = 0x7b;
    pub(in crate::census) const STORE_VALUE: u8 = 0x7a;
    pub(in crate::census) const MOVE: u8 = 0xbf;
    pub(in crate::census) const MOVE_VALUE: u8 = 0xb7;
    pub(in crate::census) const MOVE_HALF: u8 = 0xbc;
    pub(in crate::census) const ADD: u8 = 0x0f;
    pub(in crate::census) const ADD_VALUE: u8 = 0x07;
    pub(in crate::census) const TIMES_VALUE: u8 = 0x27;
    pub(in crate::census) const DOWN_VALUE: u8 = 0x77;
    pub(in crate::census) const UP_VALUE: u8 = 0x67;
    pub(super) const SKIP_UNLESS_ZERO: u8 = 0x55;
    pub(in crate::census) const CALL: u8 = 0x85;
    pub(super) const EXIT: u8 = 0x95;
}

/// A program in the making: its rows have so many words.
#[derive(Debug)]
pub(super) struct Writer {
    code: Vec<Instruction>,
    words: usize,
}

impl Writer {
    pub(super) fn new(words: usize) -> Self {
        Self { code: Vec::new(), words }
    }

    pub(super) fn put(&mut self, op: u8, to: u8, from: u8, offset: i16, value: i32) {
        let ([low, high], [a, b, c, d]) = (offset.to_ne_bytes(), value.to_ne_bytes());
        self.code.push([op, from << 4 | to, low, high, a, b, c, d]);
    }

    /// Where on the stack a word of the row is.
    pub(super) fn place(&self, word: usize) -> Option<i16> {
        Some(-i16::try_from(8 * self.words.checked_sub(word)?).ok()?)
    }

    /// A word of the row becomes what is in a register, or the other way round.
    pub(super) fn store(&mut self, register: u8, word: usize) -> Option<()> {
        let place = self.place(word)?;
        self.put(op::STORE, STACK, register, place, 0);
        Some(())
    }

    /// Likewise, the other way round.
    pub(super) fn load(&mut self, register: u8, word: usize) -> Option<()> {
        let place = self.place(word)?;
        self.put(op::LOAD, register, STACK, place, 0);
        Some(())
    }

    /// What lies so far in the context goes into a register; there is no row if it is zero: behind the last.
    pub(super) fn shown(&mut self, register: u8, offset: i16) {
        self.put(op::LOAD, register, CONTEXT, offset, 0);
        self.put(op::SKIP_UNLESS_ZERO, register, 0, 2, 0);
        self.put(op::MOVE_VALUE, R0, 0, 0, 0);
        self.put(op::EXIT, 0, 0, 0, 0);
    }

    /// What a field of a structure holds goes into a register; zero, if there is no structure.
    pub(super) fn fetch(&mut self, to: u8, base: u8, from: Place) -> Option<()> {
        let load = match from.bytes {
            8 => op::LOAD,
            4 => op::LOAD_HALF,
            2 => op::LOAD_QUARTER,
            _ => return None,
        };
        self.put(load, to, base, i16::try_from(from.offset).ok()?, 0);
        Some(())
    }

    /// Likewise, into a word.
    pub(super) fn keep(&mut self, base: u8, from: Place, word: usize) -> Option<()> {
        self.fetch(R1, base, from)?;
        self.store(R1, word)
    }

    /// Copies what is at the address in `base`, and so much further on, into a word.
    pub(super) fn copy(&mut self, base: u8, from: Place, word: usize) -> Option<()> {
        let (offset, bytes) = (i32::try_from(from.offset).ok()?, i32::try_from(from.bytes).ok()?);
        let place = self.place(word)?;
        self.put(op::MOVE, R1, STACK, 0, 0);
        self.put(op::ADD_VALUE, R1, 0, 0, place.into());
        self.put(op::MOVE_VALUE, R2, 0, 0, bytes);
        self.put(op::MOVE, R3, base, 0, 0);
        self.put(op::ADD_VALUE, R3, 0, 0, offset);
        self.put(op::CALL, 0, 0, 0, PROBE_READ_KERNEL);
        Some(())
    }

    /// Begins a program, which is given its context.
    pub(super) fn begin(&mut self) {
        self.put(op::MOVE, CONTEXT, R1, 0, 0);
    }

    /// Hands the row out, and is done.
    pub(super) fn finish(mut self) -> Option<Vec<Instruction>> {
        let (place, bytes) = (self.place(0)?, i32::try_from(8 * self.words).ok()?);
        self.put(op::LOAD, R1, CONTEXT, 0, 0);
        self.put(op::LOAD, R1, R1, 0, 0); // `meta->seq`.
        self.put(op::MOVE, R2, STACK, 0, 0);
        self.put(op::ADD_VALUE, R2, 0, 0, place.into());
        self.put(op::MOVE_VALUE, R3, 0, 0, bytes);
        self.put(op::CALL, 0, 0, 0, SEQ_WRITE);
        self.put(op::MOVE_VALUE, R0, 0, 0, 0);
        self.put(op::EXIT, 0, 0, 0, 0);
        Some(self.code)
    }
}
