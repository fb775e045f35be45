//! Pages that are copied before a pause, while their program runs.
//!
//! What was written since the last snapshot is protected again and copied; in the pause only that is copied
//! once more which was written meanwhile. What cannot be read is left to the pause.
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::origin::Copied;
use super::ranges::{Ranges, bytes, length, without};
use crate::image::Run;
use crate::inventory::Pid;

/// No more is copied so, in bytes: it takes as much memory of ours until all is stored.
const MOST: usize = 96 << 20;

/// Copies of some pages of a space.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ahead {
    ranges: Ranges,
    copied: Copied,
}

impl Ahead {
    /// Copies the pages in these ranges, or as many as it may.
    #[tracing::instrument(level = "trace", name = "ahead", skip_all)]
    pub(super) fn of(pid: Pid, ranges: &Ranges) -> Self {
        let Ok(memory) = File::open(format!("/proc/{pid}/mem")) else { return Self::default() };
        let (mut used, mut ahead) = (0_usize, Self::default());
        let mut copies = vec![0; length(ranges).min(MOST)];
        for range in ranges {
            let end = used.saturating_add(bytes(range));
            let Some(room) = copies.get_mut(used..end) else { break };
            if memory.read_exact_at(room, range.0).is_ok() {
                ahead.copied.places.push((range.0, used));
                ahead.ranges.push(*range);
                used += room.len();
            }
        }
        ahead.copied.bytes = Arc::new(copies);
        ahead
    }

    /// Which pages there are copies of.
    pub(super) fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// Forgets those that were written again.
    pub(super) fn without(mut self, again: &Ranges) -> Self {
        self.ranges = without(&self.ranges, again);
        self
    }

    /// Reads runs that are within its ranges.
    pub(super) fn read(&self, runs: &[Run], into: &mut [u8]) -> io::Result<()> {
        self.copied.read(runs, into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_again_is_not_taken_from_the_copy() {
        let memory = vec![7_u8; 5 * 4096];
        let base = memory.as_ptr().expose_provenance() as u64;
        let page = |number: u64| base + number * 4096;
        let me = Pid(std::process::id().cast_signed());
        // Nothing is mapped at the first page of all.
        let wanted = vec![(0, 4096), (page(0), page(2)), (page(3), page(5))];
        let ahead = Ahead::of(me, &wanted);
        assert_eq!(ahead.ranges(), &wanted[1..]);
        let ahead = ahead.without(&vec![(page(1), page(4))]);
        assert_eq!(ahead.ranges(), &[(page(0), page(1)), (page(4), page(5))]);
        let mut room = vec![0; 2 * 4096];
        ahead.read(&[(page(0), 4096), (page(4), 4096)], &mut room).unwrap();
        assert!(room.iter().all(|byte| *byte == 7));
    }
}
