//! Chunks: a run of bytes, named by what it is.
use crate::error::{Error, Result};
use std::path::Path;

/// BLAKE3 of the bytes before compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Name(pub(crate) [u8; 32]);

/// Pages are the unit of memory, and of what is zero.
pub(crate) const PAGE: usize = 4096;
/// The most that one chunk holds: sixteen pages.
pub(crate) const LARGEST: usize = 16 * PAGE;
/// No chunk that we read may claim to be longer: lists of chunks are chunks too.
pub(crate) const LARGEST_LIST: usize = 64 << 20;

/// How a chunk's bytes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    /// As they are.
    Raw = 0,
    /// LZ4 block.
    Lz4 = 1,
}

impl Codec {
    pub(crate) fn of(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Raw),
            1 => Some(Self::Lz4),
            _ => None,
        }
    }
}

impl Name {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

/// Compressed if that saves an eighth; a sample decides for what is long.
pub(crate) fn pack(bytes: &[u8]) -> (Codec, Vec<u8>) {
    const SAMPLE: usize = 4096;
    let pays = |packed: usize, whole: usize| packed < whole - whole / 8;
    let sample = bytes.get(..SAMPLE).filter(|_| bytes.len() >= 4 * SAMPLE);
    if sample.is_some_and(|sample| !pays(lz4_flex::block::compress(sample).len(), SAMPLE)) {
        return (Codec::Raw, bytes.to_vec());
    }
    let packed = lz4_flex::block::compress(bytes);
    if pays(packed.len(), bytes.len()) {
        (Codec::Lz4, packed)
    } else {
        (Codec::Raw, bytes.to_vec())
    }
}

/// The bytes again; `path` and `at` are for the error.
pub(crate) fn unpack(
    codec: Codec,
    stored: &[u8],
    raw: usize,
    path: &Path,
    at: u64,
) -> Result<Vec<u8>> {
    let damaged = || Error::damaged(path, at, "a chunk does not decompress");
    let bytes = match codec {
        Codec::Raw => stored.to_vec(),
        Codec::Lz4 => lz4_flex::block::decompress(stored, raw).map_err(|_| damaged())?,
    };
    if bytes.len() == raw { Ok(bytes) } else { Err(damaged()) }
}

/// Whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}
