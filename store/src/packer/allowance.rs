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

/// What compressing may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// A fifth of the time, where there is much: for what is kept.
    #[default]
    Keeping,
    /// Next to nothing, since somebody waits: only what shrinks to almost nothing is compressed, which is
    /// faster than to write it.
    Waiting,
}

impl Compression {
    /// So many compressed bytes may come out of any snapshot. Of what is kept, a quarter of a second of one
    /// processor.
    const fn always(self) -> i64 {
        match self {
            Self::Keeping => 40 << 20,
            Self::Waiting => 1 << 20,
        }
    }

    /// And one more of each so many that are stored.
    const fn one_of(self) -> i64 {
        match self {
            Self::Keeping => 32,
            Self::Waiting => 64,
        }
    }
}

#[derive(Debug)]
pub(super) struct Allowance {
    left: AtomicI64,
    one_of: i64,
}

impl Allowance {
    pub(super) fn new(compression: Compression) -> Self {
        Self { left: AtomicI64::new(compression.always()), one_of: compression.one_of() }
    }

    /// Whether the next chunk may be compressed.
    pub(super) fn is_left(&self) -> bool {
        self.left.load(Ordering::Relaxed) > 0
    }

    /// Counts a chunk: what there was of it, and how many bytes LZ4 made of that.
    pub(super) fn count(&self, raw: usize, compressed: usize) {
        let signed = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.left.fetch_add(signed(raw) / self.one_of - signed(compressed), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many chunks are compressed that shrink to so many bytes.
    fn compressed(compression: Compression, chunks: usize, len: usize) -> usize {
        const RAW: usize = 64 << 10;
        let allowance = Allowance::new(compression);
        let once = |_: &usize| {
            let may = allowance.is_left();
            allowance.count(RAW, if may { len } else { 0 });
            may
        };
        (0..chunks).filter(once).count()
    }

    #[test]
    fn little_is_compressed_and_of_much_what_shrinks_well() {
        let kept = |chunks, len| compressed(Compression::Keeping, chunks, len);
        assert_eq!(kept(1000, 40 << 10), 1000);
        assert_eq!(kept(100_000, 2 << 10), 100_000);
        let of_much = kept(100_000, 40 << 10);
        assert!((5_000..10_000).contains(&of_much), "{of_much}");
    }

    #[test]
    fn who_waits_does_not_wait_for_what_hardly_shrinks() {
        let waited_for = |len| compressed(Compression::Waiting, 10_000, len);
        assert_eq!(waited_for(1000), 10_000);
        assert!(waited_for(20 << 10) < 10_000 / 15);
    }
}
