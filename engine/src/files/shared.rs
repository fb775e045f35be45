//! Where two files do not share their blocks.
//!
//! Blocks that a twin shares are its own as well: whoever writes the file gets others for it, and as long
//! as the twin is there nobody is given these. So a file that lies where its twin lies, with nothing of it
//! dirty, has not been written there.
use crate::sys::extents::{Extent, LAST, MERGED, SHARED, UNWRITTEN};

/// Ranges in which `file` lies elsewhere than `twin`, or in which that cannot be told: ascending, neighbours
/// joined.
pub(super) fn elsewhere(file: &[Extent], twin: &[Extent]) -> Vec<(u64, u64)> {
    let ends = |all: &[Extent]| -> Vec<u64> {
        all.iter().flat_map(|one| [one.at, one.at.saturating_add(one.len)]).collect()
    };
    let mut cuts = [ends(file), ends(twin)].concat();
    cuts.sort_unstable();
    cuts.dedup();
    let (mut file, mut twin) = (Places(file), Places(twin));
    let mut found: Vec<(u64, u64)> = Vec::new();
    for (at, end) in cuts.iter().zip(cuts.iter().skip(1)).map(|(at, end)| (*at, *end)) {
        let (one, other) = (file.at(at), twin.at(at));
        if one == other && one != Place::Untold {
            continue;
        }
        match found.last_mut() {
            Some((_, last)) if *last == at => *last = end,
            _ => found.push((at, end)),
        }
    }
    found
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Reads as zeros.
    Hole,
    There(u64),
    /// Compressed, inline, or not on the disk yet.
    Untold,
}

/// Extents that have not been passed yet.
struct Places<'a>(&'a [Extent]);

impl Places<'_> {
    /// Where a byte lies; those asked for ascend.
    fn at(&mut self, at: u64) -> Place {
        while let Some((first, rest)) = self.0.split_first()
            && first.at.saturating_add(first.len) <= at
        {
            self.0 = rest;
        }
        match self.0.first().filter(|first| first.at <= at) {
            None => Place::Hole,
            Some(extent) => match extent.flags & !(LAST | MERGED | SHARED) {
                0 => Place::There(extent.physical + (at - extent.at)),
                UNWRITTEN => Place::Hole,
                _ => Place::Untold,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(at: u64, len: u64, physical: u64, flags: u32) -> Extent {
        Extent { at, physical, len, flags, ..Extent::default() }
    }

    #[test]
    fn what_was_written_lies_elsewhere() {
        let twin = [extent(0, 100, 1000, SHARED), extent(200, 50, 5000, SHARED | LAST)];
        assert_eq!(elsewhere(&twin, &twin), []);
        let split =
            [extent(0, 40, 1000, 0), extent(40, 60, 1040, MERGED), extent(200, 50, 5000, LAST)];
        assert_eq!(elsewhere(&split, &twin), [], "it may be told in other pieces");
        let written = [
            extent(0, 40, 1000, SHARED),
            extent(40, 10, 7000, 0),
            extent(50, 50, 1050, SHARED),
            extent(100, 20, 8000, 0),
            extent(200, 50, 5001, LAST),
        ];
        assert_eq!(elsewhere(&written, &twin), [(40, 50), (100, 120), (200, 250)]);
        assert_eq!(elsewhere(&twin[..1], &twin), [(200, 250)], "punched");
    }

    #[test]
    fn zeros_are_zeros_and_what_cannot_be_told_is_no_proof() {
        const ENCODED: u32 = 8;
        let unwritten = [extent(0, 100, 1000, UNWRITTEN)];
        assert_eq!(elsewhere(&unwritten, &[]), []);
        let encoded = [extent(0, 100, 1000, ENCODED)];
        assert_eq!(elsewhere(&encoded, &encoded), [(0, 100)]);
        assert_eq!(elsewhere(&unwritten, &encoded), [(0, 100)]);
    }
}
