//! How much of a snapshot is compressed, so that it is not long in coming.
//!
//! A disk takes 1.3 GB/s of what two processors read, name and write at nearly that rate; of 1 GiB of
//! words LZ4 alone would then take three times as long as all else. So what is little is compressed
//! wherever it pays. Of what is much, only so far as that adds a fifth or so to the rest, which is
//! nearly all where it shrinks to a tenth, and little where it shrinks to two thirds; the rest is
//! stored as it is.
//!
//! It is counted in bytes and not in time, so that the same bytes are always stored alike: what LZ4
//! takes goes with what comes out of it, 5 to 6 ns a byte, whether that is much of little or little of
//! much.
use std::sync::atomic::{AtomicI64, Ordering};

/// So many compressed bytes may come out of any snapshot: a quarter of a second of one processor.
const ALWAYS: i64 = 40 << 20;
/// And one more of each so many that are stored.
const OF: i64 = 32;

#[derive(Debug)]
pub(super) struct Allowance(AtomicI64);

impl Default for Allowance {
    fn default() -> Self {
        Self(AtomicI64::new(ALWAYS))
    }
}

impl Allowance {
    /// Whether the next chunk may be compressed.
    pub(super) fn is_left(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    /// Counts a chunk: what there was of it, and how many bytes LZ4 made of that.
    pub(super) fn count(&self, raw: usize, compressed: usize) {
        let signed = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.0.fetch_add(signed(raw) / OF - signed(compressed), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many chunks are compressed that shrink to so many bytes.
    fn compressed(chunks: usize, len: usize) -> usize {
        const RAW: usize = 64 << 10;
        let allowance = Allowance::default();
        let once = |_: &usize| {
            let may = allowance.is_left();
            allowance.count(RAW, if may { len } else { 0 });
            may
        };
        (0..chunks).filter(once).count()
    }

    #[test]
    fn little_is_compressed_and_of_much_what_shrinks_well() {
        assert_eq!(compressed(1000, 40 << 10), 1000);
        assert_eq!(compressed(100_000, 2 << 10), 100_000);
        let of_much = compressed(100_000, 40 << 10);
        assert!((5_000..10_000).contains(&of_much), "{of_much}");
    }
}
