//! rseq(2): restartable sequences, as a tracer sees them in memory (`include/uapi/linux/rseq.h`).
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Offset of `rseq_cs` in `struct rseq`.
const CRITICAL_SECTION: u64 = 8;

/// Where the thread whose `struct rseq` is at `area` has to go on if it is inside a sequence.
pub(crate) fn abort(memory: &File, area: u64, instruction: u64) -> Option<u64> {
    let mut pointer = [0; 8];
    memory.read_exact_at(&mut pointer, area + CRITICAL_SECTION).ok()?;
    let section = u64::from_ne_bytes(pointer);
    if section == 0 {
        return None;
    }
    let mut bytes = [0; 32];
    memory.read_exact_at(&mut bytes, section).ok()?;
    handler(&bytes, instruction)
}

/// `struct rseq_cs`: version, flags, start, length, abort handler.
fn handler(section: &[u8; 32], instruction: u64) -> Option<u64> {
    let words = section.as_chunks().0;
    let word = |at: usize| words.get(at).map(|word| u64::from_ne_bytes(*word));
    let (start, length, handler) = (word(1)?, word(2)?, word(3)?);
    (instruction.wrapping_sub(start) < length).then_some(handler)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_aborted_only_from_inside() {
        let words = [0u64, 0x1000, 0x10, 0x2000];
        let mut section = [0; 32];
        for (place, word) in section.as_chunks_mut().0.iter_mut().zip(words) {
            *place = word.to_ne_bytes();
        }
        assert_eq!(handler(&section, 0x1000), Some(0x2000));
        assert_eq!(handler(&section, 0x100f), Some(0x2000));
        assert_eq!(handler(&section, 0x1010), None);
        assert_eq!(handler(&section, 0xfff), None);
    }
}
