//! The program that the kernel runs for each task: it copies fields into a row.
//!
//! Its context is `struct bpf_iter__task` of `kernel/bpf/task_iter.c`: what iterates, then the task.
use super::btf::Place;
use super::writer::{GET_CURRENT_PID_TGID, R0, R8 as NUMBER, R9 as LEVEL, STACK, TASK, Writer, op};
use crate::sys::bpf::Instruction;

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

impl Writer {
    /// The number by which the task is known innermost. Its namespace's word serves for others first.
    fn number(&mut self, at: &Numbers) -> Option<()> {
        self.copy(TASK, at.thread_pid, NAMESPACE)?;
        self.load(NUMBER, NAMESPACE)?;
        let place = self.place(NAMESPACE)?;
        self.put(op::STORE_VALUE, STACK, 0, place, 0);
        self.copy(NUMBER, at.level, NAMESPACE)?;
        self.load(LEVEL, NAMESPACE)?;
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
    let mut writer = Writer::new(words);
    writer.begin();
    writer.shown(TASK, 8);
    for word in 0..words {
        let place = writer.place(word)?;
        writer.put(op::STORE_VALUE, STACK, 0, place, 0);
    }
    writer.put(op::CALL, 0, 0, 0, GET_CURRENT_PID_TGID);
    writer.put(op::MOVE_HALF, R0, R0, 0, 0); // The lower half: the thread.
    writer.store(R0, READER)?;
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
    writer.finish()
}
