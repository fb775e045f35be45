//! How memory is captured in the shortest pause: written-down figures, and what they decide.
//!
//! Measured of a process with 1 GiB (`tests/bench pauses`, with `SNAPD_LOG=engine=trace`): a twin costs 17 to 38 µs
//! for each MiB that there is, for page tables that are copied and protected; copying costs some 400 µs for
//! each MiB that changed, in pages that lie scattered.

/// Who has less private memory is copied, and asked, in the pause: that takes less time than a twin.
pub(crate) const TWIN_FROM: u64 = 4 << 20;
/// A twin of so many bytes costs as much time as copying one.
const TWIN_IS: u64 = 10;

/// Whether it takes less time to make a twin, if so much of so much memory has to be copied otherwise.
pub(super) fn is_twin_worth(changed: u64, all: u64) -> bool {
    changed >= TWIN_FROM && changed * TWIN_IS >= all
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_twin_is_made_of_who_is_large_and_has_written_a_tenth_of_it() {
        assert!(is_twin_worth(GIB, GIB));
        assert!(is_twin_worth(GIB / 10 + 1, GIB));
        assert!(!is_twin_worth(GIB / 11, GIB));
        assert!(!is_twin_worth(TWIN_FROM - 1, TWIN_FROM - 1));
    }
}
