//! Incremental snapshots: any mixture of new bytes and what is as it was reads like a full one.
use std::ops::Range;
use std::sync::Arc;

use proptest::prelude::*;

use super::{begin, contents, meta, noise, packs, store};
use crate::Origin;
use crate::pack::{HEADER, index_path, listing};

const PAGE: u64 = 4096;
const PAGES: u64 = 200;

/// What becomes of some pages.
#[derive(Debug, Clone, Copy)]
enum Part {
    Same,
    New(u64),
    Hole,
}

fn part() -> impl Strategy<Value = (u64, Part)> {
    let what = prop_oneof![
        3 => Just(Part::Same),
        2 => (1..1000u64).prop_map(Part::New),
        1 => Just(Part::Hole),
    ];
    (1..40u64, what)
}

fn apply(parts: &[(u64, Part)], mut each: impl FnMut(Range<u64>, Part)) {
    let mut page = 0;
    for (len, what) in parts {
        let end = (page + len).min(PAGES);
        if page < end {
            each(page * PAGE..end * PAGE, *what);
        }
        page = end;
    }
}

pub(super) fn span(range: &Range<u64>) -> Range<usize> {
    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn pages_that_did_not_change_come_from_the_parent(
        generations in prop::collection::vec(prop::collection::vec(part(), 1..16), 1..4),
        zeros in 0..PAGES,
    ) {
        let (_dir, store) = store();
        let mut model = noise(usize::try_from(PAGES * PAGE).unwrap(), 5);
        model[span(&(zeros * PAGE..PAGES.min(zeros + 20) * PAGE))].fill(0);
        let mut writer = begin(&store, None).unwrap();
        writer.stream("space/0", 0, &model).unwrap();
        writer.commit(meta()).unwrap();
        for (number, parts) in generations.iter().enumerate() {
            let parent = number as u64 + 1;
            let mut writer = begin(&store, Some(parent)).unwrap();
            let mut now = vec![0; model.len()];
            apply(parts, |range, what| match what {
                Part::Same => {
                    now[span(&range)].copy_from_slice(&model[span(&range)]);
                    writer.unchanged("space/0", range).unwrap();
                }
                Part::New(seed) => {
                    let bytes = noise(span(&range).len(), seed);
                    now[span(&range)].copy_from_slice(&bytes);
                    writer.stream("space/0", range.start, &bytes).unwrap();
                }
                Part::Hole => {}
            });
            writer.commit(meta()).unwrap();
            let read = contents(&store.read("web", parent + 1).unwrap(), "space/0", now.len());
            prop_assert!(read == now, "generation {number} of {generations:?}");
            model = now;
        }
    }
}

#[test]
fn a_file_that_grew_shrank_or_starts_anywhere_is_right() {
    let (_dir, store) = store();
    let bytes = noise(150_001, 3);
    let mut writer = begin(&store, None).unwrap();
    writer.stream("file/0", 0, &bytes).unwrap();
    writer.stream("odd", 70_003, &bytes[..10]).unwrap();
    writer.commit(meta()).unwrap();
    let odd = contents(&store.read("web", 1).unwrap(), "odd", 70_013);
    assert!(odd[..70_003].iter().all(|byte| *byte == 0) && odd[70_003..] == bytes[..10]);

    let mut writer = begin(&store, Some(1)).unwrap();
    writer.unchanged("file/0", 0..150_001).unwrap();
    writer.stream("file/0", 150_001, b"appended").unwrap();
    writer.commit(meta()).unwrap();
    let grown = contents(&store.read("web", 2).unwrap(), "file/0", 150_009);
    assert!(grown[..150_001] == bytes && &grown[150_001..] == b"appended");

    let mut writer = begin(&store, Some(2)).unwrap();
    writer.unchanged("file/0", 0..100_000).unwrap();
    writer.commit(meta()).unwrap();
    let mut seen = 0;
    let reader = store.read("web", 3).unwrap();
    let mut visit = |at: u64, bytes: &[u8]| {
        seen = at + bytes.len() as u64;
        Ok(())
    };
    reader.stream("file/0", &mut visit).unwrap();
    assert_eq!(seen, 100_000, "what was cut off is not there");
}

/// Where a part of so many bytes ends: a few in a page's middle, most nowhere in particular.
fn bytes() -> impl Strategy<Value = (u64, Part)> {
    (prop_oneof![1..200u64, 1..20_000u64, (1..20u64).prop_map(|pages| pages * PAGE)], part())
        .prop_map(|(len, (_, what))| (len, what))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_unchanged_may_begin_and_end_within_a_page(
        generations in prop::collection::vec(prop::collection::vec(bytes(), 1..24), 1..5),
    ) {
        let (_dir, store) = store();
        let mut model = noise(150_001, 5);
        let mut writer = begin(&store, None).unwrap();
        writer.stream("file/0", 0, &model).unwrap();
        writer.commit(meta()).unwrap();
        for (number, parts) in generations.iter().enumerate() {
            let mut writer = begin(&store, Some(number as u64 + 1)).unwrap();
            let (mut at, mut now) = (0, Vec::new());
            for (len, what) in parts {
                let range = at..at + len;
                now.resize(span(&range).end, 0);
                match what {
                    Part::Same => {
                        let old = model.get(span(&range).start..).unwrap_or_default();
                        now[span(&range)].iter_mut().zip(old).for_each(|(now, old)| *now = *old);
                        writer.unchanged("file/0", range).unwrap();
                    }
                    Part::New(seed) => {
                        let bytes = noise(span(&range).len(), *seed);
                        now[span(&range)].copy_from_slice(&bytes);
                        writer.stream("file/0", at, &bytes).unwrap();
                    }
                    Part::Hole => {}
                }
                at += len;
            }
            writer.commit(meta()).unwrap();
            let reader = store.read("web", number as u64 + 2).unwrap();
            prop_assert!(reader.range("file/0", 0..at).unwrap() == now, "generation {number}");
            reader.check().unwrap();
            model = now;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_announced_is_as_if_it_were_given(
        runs in prop::collection::vec((0..20u64, 1..40u64, any::<bool>()), 1..12), each in 1..4usize,
    ) {
        let (mut at, mut model, mut list) = (0, Vec::new(), Vec::new());
        for (gap, pages, zero) in runs {
            at += gap * PAGE;
            let len = usize::try_from(pages * PAGE).unwrap();
            model.resize(usize::try_from(at).unwrap(), 0);
            model.extend_from_slice(&if zero { vec![0; len] } else { noise(len, at + 1) });
            list.push((at, len));
            at += pages * PAGE;
        }
        let (_dir, store) = store();
        let mut writer = begin(&store, None).unwrap();
        let origin = from(model.clone());
        for runs in list.chunks(each) {
            writer.runs("space/0", runs, &origin).unwrap();
        }
        writer.commit(meta()).unwrap();
        let read = contents(&store.read("web", 1).unwrap(), "space/0", model.len());
        prop_assert!(read == model);
        let mut writer = begin(&store, None).unwrap();
        for (at, len) in list {
            let part = span(&(at..at + len as u64));
            writer.stream("space/0", at, &model[part]).unwrap();
        }
        let snapshot = writer.commit(meta()).unwrap();
        prop_assert!(snapshot.stored_bytes < 10_000, "the same chunks: {}", snapshot.stored_bytes);
    }
}

/// Announced bytes that are here.
pub(super) fn from(model: Vec<u8>) -> Origin {
    Arc::new(move |runs, room| {
        let all = runs.iter().flat_map(|(at, len)| &model[span(&(*at..at + *len as u64))]);
        room.iter_mut().zip(all).for_each(|(room, byte)| *room = *byte);
        Ok(())
    })
}

#[test]
fn what_cannot_be_read_makes_no_snapshot() {
    let (_dir, store) = store();
    let mut writer = begin(&store, None).unwrap();
    let origin: Origin = Arc::new(|runs, _| match runs {
        [(0, _), ..] => Ok(()),
        _ => Err(std::io::Error::other("it died")),
    });
    let announced = writer.runs("space/0", &[(0, 8 << 20)], &origin);
    let settled = announced.and_then(|()| writer.settle()).unwrap_err();
    assert_eq!(std::io::Error::from(settled).to_string(), "it died");
}

#[test]
fn what_was_announced_is_not_written_again() {
    let (_dir, store) = store();
    let mut writer = begin(&store, None).unwrap();
    let origin = from(noise(1 << 20, 4));
    writer.runs("space/0", &[(0, 5000)], &origin).unwrap();
    writer.stream("space/0", 5000, b"in the same page").unwrap_err();
    writer.runs("space/0", &[(4096, 10)], &origin).unwrap_err();
    writer.runs("space/0", &[(8200, 10)], &origin).unwrap_err();
    writer.runs("space/0", &[(8192, 10)], &origin).unwrap();
}

#[test]
fn a_record_that_ends_in_zeros_keeps_them() {
    let (_dir, store) = store();
    let record = [vec![1; 100], vec![0; 20_000]].concat();
    let mut writer = begin(&store, None).unwrap();
    writer.record(&record).unwrap();
    writer.commit(meta()).unwrap();
    assert_eq!(store.read("web", 1).unwrap().record().unwrap(), record);
}

/// So much that most of it goes past the page cache, where writes are aligned: what is in the pack is
/// found by its headers alone, too.
#[test]
fn what_is_large_is_all_there_with_and_without_its_index() {
    const LEN: u64 = 66 << 20;
    let word = |at: u64| (at | 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).to_le_bytes();
    let bytes = move |at: u64, len: usize| {
        (at..at + len as u64).step_by(8).map(word).collect::<Vec<_>>().concat()
    };
    let origin: Origin = Arc::new(move |runs, room| {
        let all = runs.iter().map(|(at, len)| bytes(*at, *len)).collect::<Vec<_>>();
        room.copy_from_slice(&all.concat());
        Ok(())
    });
    let (_dir, store) = store();
    let mut writer = begin(&store, None).unwrap();
    writer.runs("space/0", &[(0, span(&(0..LEN)).len())], &origin).unwrap();
    writer.commit(meta()).unwrap();
    let [pack] = packs(&store).try_into().unwrap();
    let (listed, index) = (listing(&pack).unwrap(), index_path(&pack));
    let ends = listed.iter().map(|(_, one)| one.at + u64::from(one.stored));
    let starts = listed.iter().skip(1).map(|(_, one)| one.at - HEADER as u64);
    assert!(ends.zip(starts).any(|(end, start)| end < start), "nothing was aligned");
    std::fs::remove_file(index).unwrap();
    assert_eq!(listing(&pack).unwrap(), listed);
    let mut seen = 0;
    let mut visit = |at: u64, found: &[u8]| {
        seen += found.len() as u64;
        assert!(bytes(at, found.len()) == found, "at {at}");
        Ok(())
    };
    store.read("web", 1).unwrap().stream("space/0", &mut visit).unwrap();
    assert_eq!(seen, LEN);
}
