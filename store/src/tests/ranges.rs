//! Incremental snapshots: any mixture of new bytes and what is as it was reads like a full one.
use std::ops::Range;

use proptest::prelude::*;

use super::{begin, contents, meta, noise, store};

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

fn span(range: &Range<u64>) -> Range<usize> {
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
fn what_is_unchanged_costs_nothing_and_parts_of_a_block_cost_that_block() {
    let (_dir, store) = store();
    let bytes = noise(8 << 20, 1);
    let mut writer = begin(&store, None).unwrap();
    writer.stream("space/0", 0, &bytes).unwrap();
    writer.commit(meta()).unwrap();
    let mut writer = begin(&store, Some(1)).unwrap();
    let page = 777 * PAGE;
    writer.unchanged("space/0", 0..page).unwrap();
    writer.stream("space/0", page, &[7; 4096]).unwrap();
    writer.unchanged("space/0", page + PAGE..8 << 20).unwrap();
    let snapshot = writer.commit(meta()).unwrap();
    assert!(snapshot.stored_bytes < 80_000, "{}", snapshot.stored_bytes);
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn runs_in_a_room_are_as_if_written_one_by_one(
        runs in prop::collection::vec((0..20u64, 1..40u64, any::<bool>()), 1..12),
    ) {
        let (_dir, store) = store();
        let mut writer = begin(&store, None).unwrap();
        let (mut at, mut model, mut list, mut used) = (0, Vec::new(), Vec::new(), 0);
        let mut room = writer.room();
        for (gap, pages, zero) in runs {
            at += gap * PAGE;
            let len = usize::try_from(pages * PAGE).unwrap();
            let bytes = if zero { vec![0; len] } else { noise(len, at + 1) };
            model.resize(usize::try_from(at).unwrap(), 0);
            model.extend_from_slice(&bytes);
            room[used..used + len].copy_from_slice(&bytes);
            list.push((at, len));
            (at, used) = (at + pages * PAGE, used + len);
            if used > 300_000 {
                room = writer.runs("space/0", &list, room).unwrap();
                (list, used) = (Vec::new(), 0);
            }
        }
        writer.runs("space/0", &list, room).unwrap();
        writer.commit(meta()).unwrap();
        let read = contents(&store.read("web", 1).unwrap(), "space/0", model.len());
        prop_assert!(read == model);
    }
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
