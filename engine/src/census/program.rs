//! The program that the kernel runs for each task: it copies fields into a row, and hands the row out.
//!
//! Its context is `struct bpf_iter__task` of `kernel/bpf/task_iter.c`: what iterates, then the task. All
//! is read by `bpf_probe_read_kernel()`, which leaves zeros where it cannot, so that no kernel's verifier has
//! an opinion on types.
use super::btf::Place;
use crate::sys::bpf::Instruction;

/// Registers: the answer of calls, their arguments, what calls keep, and the end of the stack.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const CONTEXT: u8 = 6;
const TASK: u8 = 7;
const NUMBER: u8 = 8;
const LEVEL: u8 = 9;
const STACK: u8 = 10;

/// `enum bpf_func_id`.
const GET_CURRENT_PID_TGID: i32 = 14;
const PROBE_READ_KERNEL: i32 = 113;
const SEQ_WRITE: i32 = 127;

/// Opcodes of `include/uapi/linux/bpf.h` and `bpf_common.h`.
mod op {
    pub(super) const LOAD: u8 = 0x79;
    pub(super) const STORE: u8 = 0x7b;
    pub(super) const STORE_VALUE: u8 = 0x7a;
    pub(super) const MOVE: u8 = 0xbf;
    pub(super) const MOVE_VALUE: u8 = 0xb7;
    pub(super) const MOVE_HALF: u8 = 0xbc;
    pub(super) const ADD: u8 = 0x0f;
    pub(super) const ADD_VALUE: u8 = 0x07;
    pub(super) const TIMES_VALUE: u8 = 0x27;
    pub(super) const SKIP_UNLESS_ZERO: u8 = 0x55;
    pub(super) const CALL: u8 = 0x85;
    pub(super) const EXIT: u8 = 0x95;
}

/// Words of a row before the fields: who reads, the task's number in its own PID namespace, and which that is.
pub(super) const READER: usize = 0;
pub(super) const OWN_NUMBER: usize = 1;
pub(super) const NAMESPACE: usize = 2;
pub(super) const FIELDS: usize = 3;

/// Where numbers of a task are: of `task_struct`, `struct pid`, and `struct upid`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers {
    pub(super) thread_pid: Place,
    pub(super) level: Place,
    pub(super) first: Place,
    pub(super) each_bytes: usize,
    pub(super) number: Place,
    pub(super) namespace: Place,
}

/// A program in the making: its rows have so many words.
#[derive(Debug)]
struct Writer {
    code: Vec<Instruction>,
    words: usize,
}

impl Writer {
    fn put(&mut self, op: u8, to: u8, from: u8, offset: i16, value: i32) {
        let ([low, high], [a, b, c, d]) = (offset.to_ne_bytes(), value.to_ne_bytes());
        self.code.push([op, from << 4 | to, low, high, a, b, c, d]);
    }

    /// Where on the stack a word of the row is.
    fn place(&self, word: usize) -> Option<i16> {
        Some(-i16::try_from(8 * self.words.checked_sub(word)?).ok()?)
    }

    /// Copies what is at the address in `base`, and so much further on, into a word.
    fn copy(&mut self, base: u8, from: Place, word: usize) -> Option<()> {
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

    /// The number by which the task is known innermost. Its namespace's word serves for others first.
    fn number(&mut self, at: &Numbers) -> Option<()> {
        let place = self.place(NAMESPACE)?;
        self.copy(TASK, at.thread_pid, NAMESPACE)?;
        self.put(op::LOAD, NUMBER, STACK, place, 0);
        self.put(op::STORE_VALUE, STACK, 0, place, 0);
        self.copy(NUMBER, at.level, NAMESPACE)?;
        self.put(op::LOAD, LEVEL, STACK, place, 0);
        self.put(op::TIMES_VALUE, LEVEL, 0, 0, i32::try_from(at.each_bytes).ok()?);
        self.put(op::ADD, LEVEL, NUMBER, 0, 0);
        self.put(op::ADD_VALUE, LEVEL, 0, 0, i32::try_from(at.first.offset).ok()?);
        self.copy(LEVEL, at.number, OWN_NUMBER)?;
        self.copy(LEVEL, at.namespace, NAMESPACE)
    }
}

/// The program that copies these fields of a task to a row of so many words. What is absent stays zero.
pub(super) fn program(
    numbers: &Numbers,
    fields: &[Option<Place>],
    words: usize,
) -> Option<Vec<Instruction>> {
    let mut writer = Writer { code: Vec::new(), words };
    writer.put(op::MOVE, CONTEXT, R1, 0, 0);
    writer.put(op::LOAD, TASK, CONTEXT, 8, 0);
    writer.put(op::SKIP_UNLESS_ZERO, TASK, 0, 2, 0);
    writer.put(op::MOVE_VALUE, R0, 0, 0, 0); // Behind the last task.
    writer.put(op::EXIT, 0, 0, 0, 0);
    for word in 0..words {
        let place = writer.place(word)?;
        writer.put(op::STORE_VALUE, STACK, 0, place, 0);
    }
    writer.put(op::CALL, 0, 0, 0, GET_CURRENT_PID_TGID);
    writer.put(op::MOVE_HALF, R0, R0, 0, 0); // The lower half: the thread.
    let place = writer.place(READER)?;
    writer.put(op::STORE, STACK, R0, place, 0);
    writer.number(numbers)?;
    let mut word = FIELDS;
    for field in fields {
        match field {
            Some(field) => {
                writer.copy(TASK, *field, word)?;
                word += field.bytes.div_ceil(8);
            }
            None => word += 1,
        }
    }
    if word != words {
        return None; // Some field is not as long as it is known to be.
    }
    let (place, bytes) = (writer.place(0)?, i32::try_from(8 * words).ok()?);
    writer.put(op::LOAD, R1, CONTEXT, 0, 0);
    writer.put(op::LOAD, R1, R1, 0, 0); // `meta->seq`.
    writer.put(op::MOVE, R2, STACK, 0, 0);
    writer.put(op::ADD_VALUE, R2, 0, 0, place.into());
    writer.put(op::MOVE_VALUE, R3, 0, 0, bytes);
    writer.put(op::CALL, 0, 0, 0, SEQ_WRITE);
    writer.put(op::MOVE_VALUE, R0, 0, 0, 0);
    writer.put(op::EXIT, 0, 0, 0, 0);
    Some(writer.code)
}
