//! Leaves: what two MiB of a stream consist of.
//!
//! Where a chunk is used as a whole, which is the rule, an entry is its name and two bytes. Where only some
//! of its pages are still what they were, the entry says which.
use std::ops::RangeInclusive;

use prost::Message;

use crate::chunk::{LARGEST, Name, PAGE};
use crate::index::ByName;

/// Bytes of a stream that one leaf covers.
pub(crate) const LEAF: u64 = 2 << 20;
/// Chunks are within blocks.
pub(crate) const BLOCK: u64 = LARGEST as u64;
const PAGE_BYTES: u64 = PAGE as u64;
/// Pages of a block.
const MOST: u8 = 16;

/// Offset, and what is there, of all that is not a hole.
pub(crate) type Entries = Vec<Entry>;

/// Bytes of a stream: those of a chunk, or of some of its pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where in the stream: a multiple of a page.
    pub(crate) at: u64,
    pub(crate) name: Name,
    /// All, if it does not say which.
    pub(crate) pages: Option<Pages>,
}

/// Some pages of a chunk, one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pages {
    pub(crate) first: u8,
    /// At least one.
    pub(crate) count: u8,
}

impl Pages {
    /// How many bytes the last of them is off the chunk's beginning.
    pub(crate) fn last_at(self) -> usize {
        (usize::from(self.first) + usize::from(self.count) - 1) * PAGE
    }

    /// Their bytes; `None` if the chunk does not have them all. Its last page may be short.
    pub(crate) fn of(self, chunk: &[u8]) -> Option<&[u8]> {
        let end = (self.last_at() + PAGE).min(chunk.len());
        chunk.get(usize::from(self.first) * PAGE..end).filter(|_| self.last_at() < chunk.len())
    }
}

impl Entry {
    pub(crate) fn block(&self) -> u64 {
        self.at / BLOCK
    }

    /// How many bytes its chunk may have: all pages that it names, and a whole one ends with its block.
    pub(crate) fn claims(&self) -> RangeInclusive<usize> {
        match self.pages {
            None => 0..=usize::try_from(BLOCK - self.at % BLOCK).unwrap_or(LARGEST),
            Some(pages) => pages.last_at() + 1..=LARGEST,
        }
    }

    /// How many bytes it is, of a chunk with so many; `None` if that cannot be.
    pub(crate) fn len(&self, chunk: u32) -> Option<u64> {
        let chunk = chunk as usize;
        let len = self.pages.map_or(chunk, |pages| {
            (pages.last_at() + PAGE).min(chunk).saturating_sub(usize::from(pages.first) * PAGE)
        });
        self.claims().contains(&chunk).then_some(len as u64)
    }

    /// What of it lies between these offsets, which are multiples of a page or its own end; of a chunk
    /// with so many bytes.
    pub(crate) fn cut(&self, from: u64, to: u64, chunk: u32) -> Self {
        let before = self.pages.map_or(0, |pages| u64::from(pages.first));
        let number = |pages: u64| u8::try_from(pages).unwrap_or(MOST);
        let first = before + (from - self.at) / PAGE_BYTES;
        let count = (to - from).div_ceil(PAGE_BYTES);
        let all = first == 0 && count == u64::from(chunk).div_ceil(PAGE_BYTES);
        let pages = Pages { first: number(first), count: number(count) };
        Self { at: from, name: self.name, pages: (!all).then_some(pages) }
    }
}

/// Entries on disk, ascending.
#[derive(Clone, PartialEq, Message)]
struct Leaf {
    /// Where it begins: a multiple of [`LEAF`].
    #[prost(uint64, tag = "1")]
    base: u64,
    /// See [`Word`].
    #[prost(uint32, repeated, tag = "2")]
    entries: Vec<u32>,
    /// 32 bytes each, in the order in which entries first mention them.
    #[prost(bytes = "vec", tag = "3")]
    names: Vec<u8>,
}

/// An entry, from the lowest bit: page of the leaf (9 bits), how many pages of a chunk (5), from which
/// on (4), and which of the names it is. None: all of the chunk whose name comes next.
struct Word(u32);

impl Word {
    const fn field(&self, at: u32, bits: u32) -> u32 {
        self.0 >> at & ((1 << bits) - 1)
    }

    fn page(&self) -> u32 {
        self.field(0, 9)
    }

    /// Pages, and the number of a name.
    fn part(&self) -> Option<(Pages, usize)> {
        let (count, first) = (self.field(9, 5), self.field(14, 4));
        let pages = Pages { first: u8::try_from(first).ok()?, count: u8::try_from(count).ok()? };
        (count > 0).then_some((pages, (self.0 >> 18) as usize))
    }
}
const _: () = assert!(LEAF / PAGE_BYTES == 1 << 9 && MOST as usize * PAGE == LARGEST);

/// Entries of one leaf, as they are stored.
pub(crate) fn encode(entries: &[Entry]) -> Vec<u8> {
    let base = entries.first().map_or(0, |entry| entry.at - entry.at % LEAF);
    let (mut names, mut words) = (Vec::with_capacity(entries.len()), Vec::new());
    let mut numbers = ByName::default();
    for entry in entries {
        // It fits: a leaf is that long.
        let page = u32::try_from((entry.at - base) / PAGE_BYTES).unwrap_or_default();
        let next = u32::try_from(names.len()).unwrap_or_default();
        let Some(Pages { first, count }) = entry.pages else {
            numbers.insert(entry.name, next);
            names.push(entry.name);
            words.push(page);
            continue;
        };
        let number = *numbers.entry(entry.name).or_insert(next);
        if number == next {
            names.push(entry.name);
        }
        words.push(page | u32::from(count) << 9 | u32::from(first) << 14 | number << 18);
    }
    let names = names.iter().flat_map(|name| name.0).collect();
    Leaf { base, entries: words, names }.encode_to_vec()
}

/// What a leaf says; `None` if that cannot be.
pub(crate) fn decode(bytes: &[u8]) -> Option<Entries> {
    let leaf = Leaf::decode(bytes).ok()?;
    let (names, rest) = leaf.names.as_chunks::<32>();
    let sane = rest.is_empty() && leaf.base.is_multiple_of(LEAF);
    let (mut told, mut free) = (0, 0);
    let entry = |word: &u32| {
        let word = Word(*word);
        let page = word.page();
        let (pages, number) = match word.part() {
            Some((pages, number)) => (Some(pages), number),
            None => (None, told),
        };
        let (first, count) = pages.map_or((0, 1), |pages| (pages.first, pages.count));
        let within = page % u32::from(MOST) + u32::from(count) <= u32::from(MOST);
        if page < free || !within || first + count > MOST || number > told {
            return None;
        }
        free = page + u32::from(count);
        told = told.max(number + 1);
        let at = leaf.base.checked_add(u64::from(page) * PAGE_BYTES)?;
        Some(Entry { at, name: Name(*names.get(number)?), pages })
    };
    sane.then(|| leaf.entries.iter().map(entry).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(of: u8) -> Name {
        Name::of(&[of])
    }

    #[test]
    fn what_is_whole_costs_a_name_and_two_bytes_and_parts_share_a_name() {
        let whole = |block: u64| Entry { at: LEAF * 7 + block * BLOCK, name: name(1), pages: None };
        let wholes: Entries = (0..32).map(whole).collect();
        assert!(encode(&wholes).len() <= 32 * 34 + 12, "{}", encode(&wholes).len());
        let part = |page: u8| Entry {
            at: LEAF * 7 + u64::from(page) * PAGE_BYTES,
            name: name(1),
            pages: Some(Pages { first: page, count: 1 }),
        };
        let parts: Entries = [0, 2, 4].map(part).to_vec();
        assert!(encode(&parts).len() <= 32 + 3 * 4 + 12, "{}", encode(&parts).len());
        assert_eq!(decode(&encode(&parts)).unwrap(), parts);
    }

    #[test]
    fn pages_that_a_chunk_does_not_have_are_not_given() {
        let chunk = vec![1; 2 * PAGE + 5];
        let of = |first, count| Pages { first, count }.of(&chunk).map(<[u8]>::len);
        assert_eq!(of(0, 3), Some(2 * PAGE + 5), "the last page is short");
        assert_eq!((of(2, 1), of(1, 3), of(3, 1)), (Some(5), None, None));
        let entry = |pages| Entry { at: LEAF, name: name(1), pages };
        let len = |first, count| entry(Some(Pages { first, count })).len(2 * 4096 + 5);
        assert_eq!((len(2, 1), len(1, 3)), (Some(5), None));
        assert_eq!(entry(None).len(1 << 20), None, "no block is that long");
    }

    proptest! {
        #[test]
        fn entries_come_back(
            parts in prop::collection::vec((0..3u64, 1..17u8, 0..16u8, 0..5u8, any::<bool>()), 0..99),
        ) {
            let (mut page, mut entries) = (0u64, Entries::new());
            for (gap, count, first, of, whole) in parts {
                page += gap;
                let left = MOST - u8::try_from(page % 16).unwrap();
                let count = count.min(left).min(MOST - first);
                let pages = (!whole).then_some(Pages { first, count });
                entries.push(Entry { at: LEAF + page * PAGE_BYTES, name: name(of), pages });
                page += u64::from(count);
            }
            entries.retain(|entry| entry.at < 2 * LEAF);
            prop_assert_eq!(decode(&encode(&entries)).unwrap(), entries);
        }

        #[test]
        fn what_a_leaf_says_lies_within_blocks(
            base in any::<u32>(), entries in prop::collection::vec(any::<u32>(), 0..4), names in 0..5usize,
        ) {
            let base = u64::from(base) * LEAF;
            let leaf = Leaf { base, entries, names: vec![1; names * 32] };
            for entry in decode(&leaf.encode_to_vec()).unwrap_or_default() {
                let count = entry.pages.map_or(1, |pages| u64::from(pages.count));
                prop_assert!(entry.at % BLOCK + count * PAGE_BYTES <= BLOCK);
                prop_assert!(entry.pages.is_none_or(|pages| pages.last_at() < LARGEST));
            }
        }

        #[test]
        fn foreign_bytes_never_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(decode(&bytes));
        }
    }
}
