//! Memory of which single pages change: whatever becomes of them, each snapshot reads as memory was, and
//! costs what changed.
use std::fs;
use std::ops::Range;

use proptest::prelude::*;

use super::ranges::{from, span};
use super::{begin, contents, meta, noise, packs, store};
use crate::{Reader, Store, Writer, pack};

const PAGE: u64 = 4096;
const BLOCK: u64 = 16 * PAGE;
/// Six blocks, in two leaves.
const PAGES: u64 = 96;
const BASE: u64 = (2 << 20) - 2 * BLOCK;

/// What becomes of some pages.
#[derive(Debug, Clone, Copy)]
enum Part {
    Same,
    /// Of these bytes; announced, or given.
    New(u64, bool),
    Zero,
    Hole,
}

fn part() -> impl Strategy<Value = (u64, Part)> {
    let what = prop_oneof![
        6 => Just(Part::Same),
        5 => (1..1000u64, prop::bool::weighted(0.7)).prop_map(|(seed, told)| Part::New(seed, told)),
        1 => Just(Part::Zero),
        1 => Just(Part::Hole),
    ];
    (prop_oneof![3 => 1..3u64, 1 => 1..40u64], what)
}

/// A generation: what becomes of pages, whether the one before is forgotten, and whether packs are not
/// to be relied on any more.
type Generation = (Vec<(u64, Part)>, bool, bool);

fn generation() -> impl Strategy<Value = Generation> {
    let parts = prop::collection::vec(part(), 1..60);
    (parts, any::<bool>(), prop::bool::weighted(0.1))
}

struct World {
    store: Store,
    _dir: tempfile::TempDir,
    seq: u64,
    memory: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let (dir, store) = store();
        let memory = noise(span(&(0..PAGES * PAGE)).end, 5);
        let mut writer = begin(&store, None).unwrap();
        writer.stream("space/0", BASE, &memory).unwrap();
        writer.commit(meta()).unwrap();
        Self { store, _dir: dir, seq: 1, memory }
    }

    fn write(&mut self, parts: &[(u64, Part)]) {
        let mut writer = begin(&self.store, Some(self.seq)).unwrap();
        let mut page = 0;
        let before = std::mem::take(&mut self.memory);
        self.memory.resize(before.len(), 0);
        // What comes after the last part is as it was.
        for (len, what) in parts.iter().chain([&(PAGES, Part::Same)]) {
            let range = page * PAGE..(page + len).min(PAGES) * PAGE;
            page = range.end / PAGE;
            if !range.is_empty() {
                self.part(&mut writer, &before, range, *what);
            }
        }
        self.seq = writer.commit(meta()).unwrap().seq;
    }

    fn part(&mut self, writer: &mut Writer, before: &[u8], range: Range<u64>, what: Part) {
        let there = BASE + range.start..BASE + range.end;
        let len = span(&range).len();
        match what {
            Part::Same => {
                self.memory[span(&range)].copy_from_slice(&before[span(&range)]);
                return writer.unchanged("space/0", there).unwrap();
            }
            Part::New(seed, _) => self.memory[span(&range)].copy_from_slice(&noise(len, seed)),
            Part::Zero => {}
            Part::Hole => return,
        }
        let bytes = self.memory[span(&range)].to_vec();
        if matches!(what, Part::New(_, false)) {
            return writer.stream("space/0", there.start, &bytes).unwrap();
        }
        let start = usize::try_from(there.start).unwrap();
        let origin = from([vec![0; start], bytes].concat());
        writer.runs("space/0", &[(there.start, len)], &origin).unwrap();
    }

    fn reader(&self) -> Reader {
        self.store.read("web", self.seq).unwrap()
    }

    /// Everything, as all ways of reading see it.
    fn look(&self, ranges: &[(u64, u64)]) {
        let reader = self.reader();
        let base = usize::try_from(BASE).unwrap();
        let all = contents(&reader, "space/0", base + self.memory.len());
        assert!(all[base..] == self.memory && all[..base].iter().all(|byte| *byte == 0));
        for (start, len) in ranges {
            let range = BASE + start..(BASE + start + len).min(BASE + PAGES * PAGE);
            let found = reader.range("space/0", range.clone()).unwrap();
            assert!(found == all[span(&range)], "{range:?}");
        }
        let full = self.memory.chunks(4096).filter(|page| page.iter().any(|byte| *byte != 0));
        let extents = reader.extents("space/0").unwrap();
        assert_eq!(extents.iter().map(|(_, len)| len).sum::<u64>(), full.count() as u64 * PAGE);
        assert!(extents.windows(2).all(|two| two[0].0 + two[0].1 <= two[1].0), "{extents:?}");
        reader.check().unwrap();
        reader.verify().unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_pages_over_generations_read_as_memory_was(
        generations in prop::collection::vec(generation(), 1..9),
        ranges in prop::collection::vec((0..PAGES * PAGE, 0..9 * PAGE), 3),
        flip in any::<prop::sample::Index>(),
    ) {
        let mut world = World::new();
        for (parts, forget, distrust) in &generations {
            if *distrust {
                packs(&world.store).iter().for_each(|one| fs::write(pack::distrust_path(one), "").unwrap());
            }
            world.write(parts);
            if *distrust {
                let going = packs(&world.store).into_iter().filter(|one| pack::distrust_path(one).exists());
                going.for_each(|one| fs::remove_file(one).unwrap());
            }
            if *forget || *distrust {
                let all: Vec<u64> = (1..world.seq).collect();
                world.store.forget("web", &all).unwrap();
                world.store.prune().unwrap().unwrap();
            }
            world.look(&ranges);
        }
        let newest = packs(&world.store).pop().unwrap();
        let mut bytes = fs::read(&newest).unwrap();
        let at = flip.index(bytes.len());
        bytes[at] ^= 16;
        fs::write(&newest, bytes).unwrap();
        let reader = world.reader();
        let mut found = vec![0; span(&(0..BASE + PAGES * PAGE)).end];
        let read = reader.stream("space/0", &mut |at, bytes| {
            let at = usize::try_from(at).unwrap();
            found[at..at + bytes.len()].copy_from_slice(bytes);
            Ok(())
        });
        match read {
            Ok(()) => prop_assert!(found[span(&(BASE..BASE + PAGES * PAGE))] == world.memory),
            Err(error) => prop_assert!(error.is_damage(), "{error}"),
        }
    }
}

/// Of the parent's chunks, damaged as they are, nothing is read.
#[test]
fn a_changed_page_costs_a_page_and_nothing_is_read() {
    let (_dir, store) = store();
    let bytes = noise(8 << 20, 1);
    let mut writer = begin(&store, None).unwrap();
    writer.stream("space/0", 0, &bytes).unwrap();
    writer.commit(meta()).unwrap();
    let pack = packs(&store).pop().unwrap();
    let mut damaged = fs::read(&pack).unwrap();
    damaged[(1 << 20)..(7 << 20)].fill(0);
    fs::write(&pack, &damaged).unwrap();
    let mut writer = begin(&store, Some(1)).unwrap();
    let page = 777 * PAGE;
    writer.unchanged("space/0", 0..page).unwrap();
    writer.stream("space/0", page, &bytes[1..4097]).unwrap();
    writer.unchanged("space/0", page + PAGE..8 << 20).unwrap();
    let snapshot = writer.commit(meta()).unwrap();
    assert!(snapshot.stored_bytes < 4096 + 2000, "{}", snapshot.stored_bytes);
}

/// Chunks that were gathered from all over a leaf, and of which a page or two are left.
#[test]
fn memory_that_changes_for_ever_costs_at_most_twice_what_it_is() {
    let mut world = World::new();
    for generation in 0..90 {
        let scattered = |nth: u64| {
            let new = Part::New(generation * 9 + nth + 1, !(generation + nth).is_multiple_of(4));
            [(generation * (nth + 5) % 13, Part::Same), (1, new)]
        };
        world.write(&(0..6).flat_map(scattered).collect::<Vec<_>>());
        world.look(&[]);
    }
    world.store.forget("web", &(1..world.seq).collect::<Vec<_>>()).unwrap();
    (0..3).for_each(|_| drop(world.store.prune().unwrap()));
    let left: u64 = packs(&world.store).iter().map(|one| fs::metadata(one).unwrap().len()).sum();
    assert!(left < 2 * PAGES * PAGE, "{left}");
    world.look(&[]);
}

/// They share a header, a name and what compressing one tells of the next.
#[test]
fn scattered_pages_of_a_leaf_are_stored_together() {
    let world = World::new();
    let mut writer = begin(&world.store, Some(1)).unwrap();
    let origin = from(noise(span(&(0..BASE + PAGES * PAGE)).end, 3));
    for page in (40..60).step_by(2) {
        let at = BASE + page * PAGE;
        writer.unchanged("space/0", at - PAGE..at).unwrap();
        writer.runs("space/0", &[(at, 4096)], &origin).unwrap();
    }
    writer.unchanged("space/0", BASE + 59 * PAGE..BASE + PAGES * PAGE).unwrap();
    writer.commit(meta()).unwrap();
    let pack = packs(&world.store).pop().unwrap();
    let chunks = pack::listing(&pack).unwrap();
    let lengths: Vec<u64> = chunks.iter().map(|(_, one)| one.raw.into()).collect();
    assert!(lengths.contains(&(10 * PAGE)), "{lengths:?}");
}

/// The pages of a chunk that are still needed are copied out of a pack that is to go, and no more.
#[test]
fn parts_are_taken_out_of_a_pack_that_is_to_go() {
    let mut world = World::new();
    world.write(&[(3, Part::Same), (1, Part::New(1, true))]);
    for one in packs(&world.store) {
        fs::write(pack::distrust_path(&one), "").unwrap();
    }
    world.write(&[(5, Part::Same), (91 - 5, Part::Hole)]);
    for one in packs(&world.store).iter().filter(|one| pack::distrust_path(one).exists()) {
        fs::remove_file(one).unwrap();
    }
    world.look(&[]);
    let snapshot = world.store.snapshot("web", 3).unwrap();
    assert!(snapshot.stored_bytes < 11 * PAGE, "{}", snapshot.stored_bytes);
}

#[test]
fn pages_that_were_told_of_are_not_told_of_again() {
    let world = World::new();
    let mut writer = begin(&world.store, Some(1)).unwrap();
    let origin = from(vec![1; span(&(0..BASE + 3 * PAGE)).end]);
    writer.unchanged("space/0", BASE..BASE + PAGE).unwrap();
    writer.runs("space/0", &[(BASE, 4096)], &origin).unwrap_err();
    writer.stream("space/0", BASE + PAGE - 1, b"in the page").unwrap_err();
    writer.runs("space/0", &[(BASE + PAGE, 4096)], &origin).unwrap();
    writer.unchanged("space/0", BASE..BASE + 3 * PAGE).unwrap_err();
    writer.unchanged("space/0", BASE + 2 * PAGE..BASE + 3 * PAGE).unwrap();
    writer.stream("space/0", BASE + 3 * PAGE, b"more").unwrap();
    writer.runs("space/0", &[(BASE + 3 * PAGE, 4096)], &origin).unwrap_err();
    writer.unchanged("space/0", BASE + 3 * PAGE..BASE + 4 * PAGE).unwrap_err();
}

/// A thread finds it, for it alone reads of the parent; whoever writes hears what is wrong.
#[test]
fn pages_that_cannot_be_stored_anew_say_that_the_parent_is_damaged() {
    let world = World::new();
    let first = packs(&world.store).pop().unwrap();
    let mut damaged = fs::read(&first).unwrap();
    damaged[1000] ^= 1; // In the first block.
    fs::write(&first, &damaged).unwrap();
    let mut writer = begin(&world.store, Some(1)).unwrap();
    let origin = from(noise(span(&(0..BASE + 2 * BLOCK)).end, 3));
    for block in [BASE, BASE + BLOCK] {
        writer.unchanged("space/0", block..block + PAGE).unwrap();
        let rest = (block + PAGE, span(&(PAGE..BLOCK)).len());
        writer.runs("space/0", &[rest], &origin).unwrap();
    }
    let error = writer.seal().unwrap_err();
    assert!(error.is_damage(), "{error}");
    assert!(pack::distrust_path(&first).exists(), "what is relied on next is stored anew");
}
