//! Chunks: a run of bytes, named by what it is.
//!
//! Pages that hold what looks drawn by lot (what is compressed or encrypted already) stand beside others
//! in most programs. To compress them takes most of the time and saves nothing, so a look at a few of its
//! bytes decides for each page.
use lz4::block;

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
    /// Which pages are as they are, an LZ4 block of the others, then those.
    Pages = 2,
}

impl Codec {
    pub(crate) fn of(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Raw),
            1 => Some(Self::Lz4),
            2 => Some(Self::Pages),
            _ => None,
        }
    }
}

impl Name {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

/// How many bytes [`Compressor::compress`] may need.
pub(crate) fn room_for(len: usize) -> usize {
    // Of what is too long for a block, none can be made.
    size_of::<Mask>() + block::compress_bound(len).unwrap_or(0)
}

/// A bit for each page of a chunk, the first lowest: set if it is as it is.
type Mask = u16;
const _: () = assert!(LARGEST / PAGE <= Mask::BITS as usize);

/// Makes chunks smaller.
#[derive(Debug, Default)]
pub(crate) struct Compressor {
    /// Pages that are compressed, one behind the other.
    pages: Vec<u8>,
    /// How many bytes LZ4 has made: the measure of how long it took.
    made: usize,
}

impl Compressor {
    /// Compresses into `room` if that saves an eighth: says how, and to how many bytes.
    pub(crate) fn compress(&mut self, bytes: &[u8], room: &mut [u8]) -> Option<(Codec, usize)> {
        let pays = |(codec, len)| (len < bytes.len() - bytes.len() / 8).then_some((codec, len));
        if bytes.len() > LARGEST {
            return pays((Codec::Lz4, self.whole(bytes, room)?));
        }
        let mut mask: Mask = 0;
        for (page, bytes) in bytes.chunks(PAGE).enumerate() {
            mask |= Mask::from(!promises(bytes)) << page;
        }
        match bytes.len().div_ceil(PAGE) - mask.count_ones() as usize {
            0 => None,
            _ if mask == 0 => pays((Codec::Lz4, self.whole(bytes, room)?)),
            _ => pays((Codec::Pages, self.pages(bytes, mask, room)?)),
        }
    }

    /// How many compressed bytes have come out of it so far, kept or not.
    pub(crate) fn made(&self) -> usize {
        self.made
    }

    fn whole(&mut self, bytes: &[u8], room: &mut [u8]) -> Option<usize> {
        let len = lz4(bytes, room)?;
        self.made += len;
        Some(len)
    }

    fn pages(&mut self, bytes: &[u8], mask: Mask, room: &mut [u8]) -> Option<usize> {
        self.pages.clear();
        of_mask(bytes, mask, false).for_each(|page| self.pages.extend_from_slice(page));
        let (head, body) = room.split_first_chunk_mut()?;
        *head = mask.to_le_bytes();
        let mut end = lz4(&self.pages, body)?;
        self.made += end;
        for page in of_mask(bytes, mask, true) {
            body.get_mut(end..end + page.len())?.copy_from_slice(page);
            end += page.len();
        }
        Some(head.len() + end)
    }
}

fn lz4(bytes: &[u8], room: &mut [u8]) -> Option<usize> {
    block::compress_to_buffer(bytes, None, false, room).ok()
}

fn unlz4(stored: &[u8], room: &mut [u8]) -> Option<usize> {
    let len = i32::try_from(room.len()).ok()?;
    block::decompress_to_buffer(stored, Some(len), room).ok()
}

/// Pages whose bit is set, or not.
fn of_mask(bytes: &[u8], mask: Mask, set: bool) -> impl Iterator<Item = &[u8]> {
    let pages = bytes.chunks(PAGE).enumerate();
    pages.filter(move |(page, _)| (mask >> page & 1 == 1) == set).map(|(_, page)| page)
}

/// Whether compressing may pay: not where nearly every byte of a sample is another one.
fn promises(page: &[u8]) -> bool {
    const PARTS: usize = 4;
    const PART: usize = 16;
    // Of 64 bytes that are drawn by lot 57 differ, give or take 3.
    const MANY: u32 = 48;
    let mut parts = [[].as_slice(); PARTS];
    let each = page.chunks(page.len().div_ceil(PARTS).max(PART));
    parts.iter_mut().zip(each).for_each(|(part, bytes)| *part = bytes);
    // A bit for each byte there is. Of each part by itself: else each byte would wait for the one before.
    let mut seen = [[0_u64; 4]; PARTS];
    for at in 0..PART {
        for (part, seen) in parts.iter().zip(&mut seen) {
            let byte = part.get(at).copied().unwrap_or_default();
            if let Some(some) = seen.get_mut(usize::from(byte >> 6)) {
                *some |= 1 << (byte & 63);
            }
        }
    }
    let of_all = |word: usize| seen.iter().filter_map(|part| part.get(word)).fold(0, |a, b| a | b);
    (0..4).map(|word| of_all(word).count_ones()).sum::<u32>() < MANY
}

/// Restores the bytes; `None` if they are not as many as there is room for, or not compressed by us.
pub(crate) fn unpack(codec: Codec, stored: &[u8], into: &mut [u8]) -> Option<()> {
    match codec {
        Codec::Raw if stored.len() == into.len() => into.copy_from_slice(stored),
        Codec::Raw => return None,
        Codec::Lz4 => return (unlz4(stored, into)? == into.len()).then_some(()),
        Codec::Pages => unpack_pages(stored, into)?,
    }
    Some(())
}

/// What was compressed comes out at the end, and then goes forward to its places: these are never
/// behind what is still to be moved.
fn unpack_pages(stored: &[u8], into: &mut [u8]) -> Option<()> {
    let (head, body) = stored.split_first_chunk().filter(|_| into.len() <= LARGEST)?;
    let mask = Mask::from_le_bytes(*head);
    let as_they_are: usize = of_mask(into, mask, true).map(<[u8]>::len).sum();
    let (packed, mut rest) = body.split_at_checked(body.len().checked_sub(as_they_are)?)?;
    let mut from = as_they_are;
    let done = unlz4(packed, into.get_mut(from..)?)?;
    let whole = done == into.len() - from;
    for (page, at) in (0..into.len()).step_by(PAGE).enumerate().take_while(|_| whole) {
        let end = into.len().min(at + PAGE);
        if mask >> page & 1 == 1 {
            let (now, later) = rest.split_at_checked(end - at)?;
            into.get_mut(at..end)?.copy_from_slice(now);
            rest = later;
        } else {
            into.copy_within(from..from + (end - at), at);
            from += end - at;
        }
    }
    whole.then_some(())
}

/// Whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::noise;
    use proptest::prelude::*;

    fn there_and_back(bytes: &[u8]) -> (Option<Codec>, usize) {
        let mut room = vec![0; room_for(bytes.len())];
        let mut compressor = Compressor::default();
        let packed = compressor.compress(bytes, &mut room);
        assert!(packed.is_none_or(|(_, len)| (1..=len).contains(&compressor.made())));
        let (codec, len) = packed.unwrap_or((Codec::Raw, bytes.len()));
        let stored = if codec == Codec::Raw { bytes } else { &room[..len] };
        let mut found = vec![1; bytes.len()];
        unpack(codec, stored, &mut found).unwrap();
        assert!(found == bytes);
        (packed.map(|packed| packed.0), len)
    }

    #[test]
    fn each_page_is_stored_as_suits_it() {
        let page = |sort| if sort == 'p' { vec![7; PAGE] } else { noise(PAGE, 9) };
        let joined =
            |sorts: &str| there_and_back(&sorts.chars().flat_map(page).collect::<Vec<_>>());
        assert_eq!(joined(&"l".repeat(16)), (None, LARGEST), "drawn by lot");
        assert_eq!(joined("pppp").0, Some(Codec::Lz4), "plain");
        let (codec, len) = joined("plpl");
        assert!(codec == Some(Codec::Pages) && len < 2 * PAGE + 200, "{codec:?} {len}");
        assert_eq!(joined("llllllllp").0, None, "less than an eighth");
    }

    proptest! {
        #[test]
        fn whatever_it_is_comes_back(
            pages in prop::collection::vec((any::<bool>(), 1..1000u64), 1..17), cut in 0..PAGE,
        ) {
            let page = |(lot, seed): &(bool, u64)| {
                if *lot { noise(PAGE, *seed) } else { vec![seed.to_le_bytes()[0]; PAGE] }
            };
            let bytes: Vec<u8> = pages.iter().flat_map(page).collect();
            there_and_back(&bytes[..bytes.len() - cut]);
        }

        #[test]
        fn nothing_makes_it_panic(
            stored in prop::collection::vec(any::<u8>(), 0..9000), raw in 0..LARGEST + PAGE,
        ) {
            for codec in [Codec::Raw, Codec::Lz4, Codec::Pages] {
                unpack(codec, &stored, &mut vec![0; raw]);
            }
        }
    }
}
