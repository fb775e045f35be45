//! Whatever happens at whatever step: what was committed is there and equal, what was not is not
//! seen, and its space can be had again.
use std::collections::BTreeMap;
use std::fs;
use std::sync::LazyLock;

use nix::errno::Errno;

use super::simulated::{Disk, End};
use super::{begin, contents, meta, noise};
use crate::{Options, Result, Store};

const SIZE: usize = 180_000;

fn bytes(n: u64) -> Vec<u8> {
    static ALL: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        // The first half is the same in all, the second in none.
        (0..10).map(|n| [noise(SIZE / 2, 99), noise(SIZE / 2, n + 1)].concat()).collect()
    });
    ALL[usize::try_from(n).unwrap()].clone()
}

/// What must be there (`true`), and what may.
type Model = BTreeMap<u64, bool>;

fn take(store: &Store, n: u64, parent: Option<u64>, model: &mut Model) -> Result<()> {
    let mut writer = begin(store, parent)?;
    assert_eq!(writer.seq(), n);
    if parent.is_some() {
        writer.unchanged("space/0", 0..(SIZE / 2) as u64)?;
        writer.stream("space/0", (SIZE / 2) as u64, &bytes(n)[SIZE / 2..])?;
    } else {
        writer.stream("space/0", 0, &bytes(n))?;
    }
    writer.record(&n.to_le_bytes())?;
    let sealed = writer.seal()?;
    model.insert(n, false);
    sealed.commit(meta())?;
    model.insert(n, true);
    Ok(())
}

fn forget(store: &Store, numbers: &[u64], model: &mut Model) -> Result<()> {
    numbers.iter().for_each(|n| drop(model.insert(*n, false)));
    store.forget("web", numbers)?;
    numbers.iter().for_each(|n| drop(model.remove(n)));
    Ok(())
}

/// A life of a store; ends at the first error.
fn life(disk: &std::sync::Arc<Disk>, model: &mut Model) -> Result<()> {
    let store = disk.store()?;
    take(&store, 1, None, model)?;
    take(&store, 2, Some(1), model)?;
    take(&store, 3, Some(2), model)?;
    forget(&store, &[1], model)?;
    store.prune()?;
    let other = store.begin(super::new("other", None))?;
    forget(&store, &[2], model)?;
    store.prune()?; // Beside a writer.
    drop(other);
    take(&store, 4, Some(3), model)?;
    let reader = store.read("web", 3)?;
    forget(&store, &[3, 4], model)?;
    assert_eq!(contents(&reader, "space/0", SIZE), bytes(3), "while it is read");
    store.prune()?;
    assert_eq!(contents(&reader, "space/0", SIZE), bytes(3), "while it is read");
    drop(reader);
    take(&store, 5, None, model)?;
    store.prune().map(drop)
}

fn size_of_packs(store: &Store) -> u64 {
    let packs = fs::read_dir(store.dir().join("packs")).unwrap();
    packs.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

fn check(disk: &Disk, model: &Model, how: &str) {
    let Ok(store) = Store::create(&disk.dir, Options::default()) else {
        panic!(
            "{how}: the store does not open: {:?}",
            Store::create(&disk.dir, Options::default())
        );
    };
    let see = |when: &str| {
        let seen = store.numbers("web").unwrap();
        for (n, _) in model.iter().filter(|(_, must)| **must) {
            assert!(seen.contains(n), "{how}, {when}: {n} is lost, of {model:?}");
        }
        for n in &seen {
            assert!(model.contains_key(n), "{how}, {when}: {n} was never committed, of {model:?}");
            let reader =
                store.read("web", *n).unwrap_or_else(|error| panic!("{how}, {n}: {error}"));
            reader.verify().unwrap_or_else(|error| panic!("{how}, {when}, {n}: {error:?}"));
            assert_eq!(contents(&reader, "space/0", SIZE), bytes(*n), "{how}, {when}: {n}");
            assert_eq!(reader.record().unwrap(), n.to_le_bytes());
        }
        seen
    };
    let before = see("after it");
    store.prune().unwrap_or_else(|error| panic!("{how}: {error:?}")).unwrap();
    assert_eq!(see("pruned"), before);
    // Twice as much as is needed is the bound of pruning.
    let needed = before.len() as u64 * SIZE as u64;
    assert!(size_of_packs(&store) <= 2 * needed + 20_000, "{how}: space is lost");
    let parent = before.last().copied();
    let mut writer = begin(&store, parent).unwrap();
    let next = writer.seq();
    assert!(before.iter().all(|n| *n < next));
    writer.stream("space/0", 0, &bytes(next)).unwrap();
    writer.commit(meta()).unwrap();
    let reader = store.read("web", next).unwrap();
    assert_eq!(contents(&reader, "space/0", SIZE), bytes(next), "{how}: life goes on");
}

fn root() -> tempfile::TempDir {
    // Thousands of syncs are not what is tested.
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

fn all_steps() -> usize {
    let root = root();
    let disk = Disk::new(root.path(), End::Never, 0);
    life(&disk, &mut Model::new()).unwrap();
    let steps = disk.steps();
    assert!(steps > 80, "{steps}");
    steps
}

fn at_every_step(ends: &[End]) {
    for at in 1..=all_steps() {
        for end in ends {
            let root = root();
            let disk = Disk::new(root.path(), *end, at);
            let mut model = Model::new();
            let lived = life(&disk, &mut model);
            let how = format!("{end:?} at step {at}");
            if matches!(end, End::Killed | End::PowerCut(_)) {
                assert!(lived.is_err(), "{how}");
            }
            disk.lose_power();
            check(&disk, &model, &how);
        }
    }
}

#[test]
fn killed_at_any_step_nothing_is_lost() {
    at_every_step(&[End::Killed]);
}

#[test]
fn without_power_at_any_step_nothing_is_lost() {
    at_every_step(&(0..3).map(End::PowerCut).collect::<Vec<_>>());
}

#[test]
fn an_error_at_any_step_is_told_and_nothing_is_lost() {
    at_every_step(&[End::Error(Errno::EIO), End::Error(Errno::ENOSPC)]);
}

#[test]
fn a_disk_that_is_full_from_any_step_on_loses_nothing() {
    at_every_step(&[End::Full]);
}

#[test]
fn a_full_disk_is_named_and_forgetting_makes_room() {
    let root = root();
    let disk = Disk::new(root.path(), End::Never, 0);
    let store = disk.store().unwrap();
    for n in 1..=2 {
        let mut writer = begin(&store, None).unwrap();
        writer.stream("space/0", 0, &noise(SIZE, n)).unwrap();
        writer.commit(meta()).unwrap();
    }
    fs::remove_dir_all(root.path().join("shadow")).unwrap();
    let full = Disk::new(root.path(), End::Full, 1);
    let store = full.store().unwrap();
    let error = take(&store, 3, Some(2), &mut Model::new()).unwrap_err();
    assert!(error.is_space() && error.to_string().contains("no space left"), "{error}");
    for n in [1, 2] {
        store.forget("web", &[n]).unwrap();
        assert_eq!(store.prune().unwrap().unwrap().packs, 1, "it needs no room");
    }
    assert_eq!(size_of_packs(&store), 0);
    assert_eq!(
        begin(&Store::create(&disk.dir, Options::default()).unwrap(), None).unwrap().seq(),
        3
    );
}
