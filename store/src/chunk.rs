//! Chunks: a run of bytes, named by what it is.
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

/// Compresses into `room` if that saves an eighth, and says to how many bytes. A sample decides first
/// for what is long. The room grows as needed, and is to be used again.
pub(crate) fn pack(bytes: &[u8], room: &mut Vec<u8>) -> Option<usize> {
    const SAMPLE: usize = 4096;
    let pays = |packed: usize, whole: usize| packed < whole - whole / 8;
    let most = lz4_flex::block::get_maximum_output_size(bytes.len());
    if room.len() < most {
        room.resize(most, 0);
    }
    let mut compress = |bytes: &[u8]| lz4_flex::block::compress_into(bytes, room).ok();
    let sample = bytes.get(..SAMPLE).filter(|_| bytes.len() >= 4 * SAMPLE);
    if let Some(sample) = sample {
        compress(sample).filter(|len| pays(*len, SAMPLE))?;
    }
    compress(bytes).filter(|len| pays(*len, bytes.len()))
}

/// Appends the bytes again; `None` if they are not `raw` many, or not compressed by us.
pub(crate) fn unpack(codec: Codec, stored: &[u8], raw: usize, into: &mut Vec<u8>) -> Option<()> {
    let before = into.len();
    match codec {
        Codec::Raw => into.extend_from_slice(stored),
        Codec::Lz4 => {
            into.resize(before + raw, 0);
            let room = into.get_mut(before..).unwrap_or_default();
            let done = lz4_flex::block::decompress_into(stored, room).ok()?;
            into.truncate(before + done);
        }
    }
    (into.len() == before + raw).then_some(())
}

/// Whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}
