//! Writers, readers and pruning side by side, in threads and in processes that are killed.
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{contents, meta, new, noise, packs, snap, store};
use crate::{Options, Store};

fn begin_of(store: &Store, workload: &str, parent: Option<u64>) -> crate::Writer {
    store.begin(new(workload, parent)).unwrap()
}

#[test]
fn what_a_writer_refers_to_is_not_pruned_before_it_commits() {
    let (_dir, store) = store();
    let bytes = noise(1 << 20, 1);
    snap(&store, None, &bytes);
    let mut writer = begin_of(&store, "other", None);
    writer.stream("space/0", 4096, &bytes).unwrap();
    store.forget("web", &[1]).unwrap();
    // Seen as dead, condemned, and spared in the end: twice, for the first time sweeps the list.
    for _ in 0..3 {
        assert_eq!(store.prune().unwrap().unwrap().packs, 0);
    }
    let mut late = begin_of(&store, "late", None);
    late.stream("space/0", 4096, &bytes).unwrap();
    writer.commit(meta()).unwrap();
    store.prune().unwrap().unwrap();
    late.commit(meta()).unwrap();
    store.forget("other", &[1]).unwrap();
    for _ in 0..3 {
        store.prune().unwrap().unwrap();
    }
    let reader = store.read("late", 1).unwrap();
    assert_eq!(contents(&reader, "space/0", bytes.len() + 4096)[4096..], bytes);
    store.forget("late", &[1]).unwrap();
    drop(reader);
    store.prune().unwrap().unwrap();
    assert_eq!(packs(&store).len(), 0, "and in the end nothing is left");
}

#[test]
fn what_dead_writers_left_goes_and_nobody_is_kept_waiting() {
    let (_dir, store) = store();
    snap(&store, None, b"x");
    let drafts =
        [store.manifest("web", 7), packs(&store)[0].clone()].map(|p| p.with_extension("tmp"));
    drafts.iter().for_each(|path| std::fs::write(path, "half").unwrap());
    let writer = super::begin(&store, Some(1)).unwrap();
    store.prune().unwrap().unwrap();
    assert!(drafts[0].exists(), "it could be that writer's");
    drop(writer);
    store.prune().unwrap().unwrap();
    store.prune().unwrap().unwrap();
    assert!(drafts.iter().all(|path| !path.exists()));
}

#[test]
fn a_reader_keeps_what_it_reads_and_gives_way_when_done() {
    let (_dir, store) = store();
    let bytes = noise(3 << 20, 1);
    snap(&store, None, &bytes);
    let reader = store.read("web", 1).unwrap();
    store.forget("web", &[1]).unwrap();
    assert_eq!(store.numbers("web").unwrap(), [], "it is forgotten");
    store.prune().unwrap().unwrap();
    assert_eq!(contents(&reader, "space/0", bytes.len() + 4096)[4096..], bytes);
    assert_eq!(super::begin(&store, None).unwrap().seq(), 2, "its number stays taken");
    drop(reader);
    store.prune().unwrap().unwrap();
    assert_eq!(packs(&store).len(), 0);
}

/// Each workload keeps its last two snapshots; all share most of their bytes.
fn work(dir: &std::path::Path, workload: &str, rounds: u64) {
    let store = Store::open(dir, Options { catalog: false, ..Options::default() }).unwrap();
    let common = noise(400_000, 1);
    for round in 1..=rounds {
        let all = store.numbers(workload).unwrap();
        let mut writer = begin_of(&store, workload, all.last().copied());
        let own = noise(50_000, round + workload.len() as u64 * 1000);
        writer.stream("common", 0, &common).unwrap();
        writer.stream("own", 0, &own).unwrap();
        writer.commit(meta()).unwrap();
        let all = store.numbers(workload).unwrap();
        store.forget(workload, &all[..all.len().saturating_sub(2)]).unwrap();
        store.prune().unwrap();
        for seq in store.numbers(workload).unwrap() {
            let reader = store.read(workload, seq).unwrap();
            reader.verify().unwrap();
            assert!(contents(&reader, "common", common.len()) == common);
        }
    }
}

#[test]
fn many_writers_readers_and_pruners_do_not_disturb_each_other() {
    let (_dir, store) = store();
    let (done, failures) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let dir = store.dir();
        let threads: Vec<_> = ["a", "bb", "ccc"]
            .map(|name| scope.spawn(move || work(dir, name, 25)))
            .into_iter()
            .collect();
        let pruner = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                failures.fetch_add(u64::from(store.prune().is_err()), Ordering::Relaxed);
                std::thread::yield_now();
            }
        });
        let ended: Vec<_> = threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        pruner.join().unwrap();
        assert!(ended.iter().all(Result::is_ok), "a worker failed");
    });
    assert_eq!(failures.load(Ordering::Relaxed), 0);
    store.prune().unwrap().unwrap();
    let left: u64 = packs(&store).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(left < 2 * 3 * (400_000 + 2 * 50_000), "{left} bytes are left");
}
