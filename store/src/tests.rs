mod crashes;
mod pages;
mod ranges;
mod secrecy;
mod simulated;
mod together;

use super::*;
use chrono::Utc;
use proptest::prelude::*;
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

pub(crate) fn meta() -> Meta {
    Meta {
        taken_at: Utc::now(),
        trigger: Trigger::Request,
        pause_ms: 1.5,
        took_ms: 2.0,
        processes: 1,
        threads: 1,
        memory_bytes: 0,
        changed_bytes: 0,
        tracker: Tracker::Full,
        tags: Vec::new(),
        notes: Vec::new(),
    }
}

pub(crate) fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(&dir.path().join("store"), Options::default()).unwrap();
    (dir, store)
}

pub(crate) fn new(workload: &str, parent: Option<u64>) -> NewSnapshot {
    NewSnapshot { workload: workload.into(), parent, compression: Compression::Keeping }
}

pub(crate) fn begin(store: &Store, parent: Option<u64>) -> Result<Writer> {
    store.begin(new("web", parent))
}

fn contents(reader: &Reader, name: &str, size: usize) -> Vec<u8> {
    let mut all = vec![0; size];
    let mut visit = |at: u64, bytes: &[u8]| {
        let at = usize::try_from(at).unwrap();
        all[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    };
    reader.stream(name, &mut visit).unwrap();
    all
}

pub(crate) fn noise(len: usize, mut seed: u64) -> Vec<u8> {
    let step = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()[3]
    };
    std::iter::repeat_with(step).take(len).collect()
}

fn snap(store: &Store, parent: Option<u64>, bytes: &[u8]) -> Snapshot {
    let mut writer = begin(store, parent).unwrap();
    writer.stream("space/0", 4096, bytes).unwrap();
    writer.record(b"what it is").unwrap();
    writer.definition(b"how to run it").unwrap();
    writer.commit(meta()).unwrap()
}

fn packs(store: &Store) -> Vec<PathBuf> {
    let listed = fs::read_dir(store.dir().join("packs")).unwrap();
    let mut paths: Vec<_> = listed.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "pack"));
    paths.sort();
    paths
}

#[test]
fn what_was_written_is_read_and_stored_once() {
    let (_dir, store) = store();
    let bytes = noise(5 << 20, 7);
    let first = snap(&store, None, &bytes);
    assert_eq!(first.seq, 1);
    assert!(first.stored_bytes >= 5 << 20);
    let second = snap(&store, Some(1), &bytes);
    assert!(second.stored_bytes < 4096, "{} bytes for nothing new", second.stored_bytes);
    let reader = store.read("web", 2).unwrap();
    assert_eq!(contents(&reader, "space/0", bytes.len() + 4096)[4096..], bytes);
    assert_eq!(reader.record().unwrap(), b"what it is");
    assert_eq!(reader.definition(), b"how to run it");
    assert_eq!(reader.line().to_string(), "1-2");
    reader.verify().unwrap();
}

#[test]
fn an_uncommitted_snapshot_leaves_nothing_and_takes_no_number() {
    let (_dir, store) = store();
    let mut writer = begin(&store, None).unwrap();
    writer.stream("space/0", 0, &noise(1 << 20, 1)).unwrap();
    drop(writer);
    assert_eq!(packs(&store), Vec::<PathBuf>::new());
    assert_eq!(snap(&store, None, b"x").seq, 1);
}

#[test]
fn numbers_are_never_used_twice() {
    let (_dir, store) = store();
    snap(&store, None, b"x");
    snap(&store, None, b"y");
    store.forget("web", &[1, 2]).unwrap();
    assert_eq!(snap(&store, None, b"z").seq, 3);
}

#[test]
fn pruning_frees_what_nobody_needs_and_keeps_the_rest() {
    let (_dir, store) = store();
    let (one, mut two) = (noise(1 << 20, 1), noise(1 << 20, 2));
    two.extend_from_slice(&one[..1 << 18]);
    snap(&store, None, &one);
    snap(&store, Some(1), &two);
    assert_eq!(store.prune().unwrap().unwrap().packs, 0);
    store.forget("web", &[1]).unwrap();
    let pruned = store.prune().unwrap().unwrap();
    assert!(pruned.bytes > 1 << 19, "{pruned:?}");
    let reader = store.read("web", 2).unwrap();
    assert_eq!(contents(&reader, "space/0", two.len() + 4096)[4096..], two);
}

#[test]
fn damage_is_found_and_named_and_the_one_before_is_not_touched_by_it() {
    let (_dir, store) = store();
    let (one, two) = (noise(1 << 17, 1), noise(1 << 17, 2));
    snap(&store, None, &one);
    snap(&store, Some(1), &two);
    let newest = packs(&store).pop().unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest, &bytes).unwrap();
    let error = store.read("web", 2).unwrap().verify().unwrap_err();
    assert_eq!(error.to_string(), "snapshot web@2 cannot be read");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(error.is_damage() && cause.contains("damaged at byte"), "{cause}");
    assert!(cause.contains(newest.to_str().unwrap()), "{cause}");
    store.read("web", 1).unwrap().verify().unwrap();

    fs::write(&newest, &bytes[..middle]).unwrap();
    assert!(store.read("web", 2).unwrap().verify().unwrap_err().is_damage());
    fs::remove_file(store.manifest("web", 2)).unwrap();
    assert!(matches!(store.read("web", 2), Err(Error::Missing { .. })));
}

#[test]
fn what_a_damaged_pack_holds_is_stored_anew_and_heals_who_needs_it() {
    let (_dir, store) = store();
    let bytes = noise(1 << 17, 1);
    snap(&store, None, &bytes);
    let pack = packs(&store).pop().unwrap();
    let mut damaged = fs::read(&pack).unwrap();
    damaged[100] ^= 1;
    fs::write(&pack, &damaged).unwrap();
    assert!(store.read("web", 1).unwrap().verify().unwrap_err().is_damage());
    let second = snap(&store, None, &bytes);
    assert!(second.stored_bytes > 1 << 17, "it does not rely on damage that is known");
    store.read("web", 2).unwrap().verify().unwrap();
    store.read("web", 1).unwrap().verify().unwrap();
    let pruned = store.prune().unwrap();
    assert!(pruned.is_some());
    store.read("web", 1).unwrap().verify().unwrap();
}

#[test]
fn of_a_pack_without_index_what_lies_before_the_damage_is_read() {
    let (_dir, store) = store();
    let bytes = noise(1 << 20, 1);
    snap(&store, None, &bytes);
    let pack = packs(&store).pop().unwrap();
    fs::remove_file(pack.with_extension("index")).unwrap();
    fs::OpenOptions::new().write(true).open(&pack).unwrap().set_len(600_000).unwrap();
    snap(&store, None, &noise(1 << 17, 2));
    store.read("web", 2).unwrap().verify().unwrap();
    assert!(store.read("web", 1).unwrap().verify().unwrap_err().is_damage());
}

#[test]
fn a_damaged_manifest_is_listed_as_damaged_and_can_be_forgotten() {
    let (_dir, store) = store();
    (1..=2).for_each(|n| drop(snap(&store, (n > 1).then(|| n - 1), &n.to_le_bytes())));
    let path = store.manifest("web", 2);
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let listed = store.snapshots(Some("web")).unwrap();
    assert_eq!(listed.iter().map(Snapshot::restorable).collect::<Vec<_>>(), [true, false]);
    assert!(listed[1].meta.notes[0].contains("2.manifest is damaged"), "{listed:?}");
    assert_eq!(store.restorable("web").unwrap(), [1]);
    assert!(store.prune().unwrap_err().is_damage(), "what it needed is unknown");
    store.forget("web", &[2]).unwrap();
    assert_eq!(store.prune().unwrap().unwrap().packs, 1);
    assert_eq!(snap(&store, Some(1), b"next").seq, 3);
}

#[test]
fn parts_of_a_stream_are_read_without_the_rest() {
    let (_dir, store) = store();
    let bytes = noise(1 << 20, 9);
    snap(&store, None, &bytes);
    let reader = store.read("web", 1).unwrap();
    let extents = reader.extents("space/0").unwrap();
    assert_eq!(extents.first(), Some(&(4096, 61_440)));
    assert_eq!(extents.iter().map(|(_, len)| len).sum::<u64>(), 1 << 20);
    let mut wanted = vec![0; 96];
    wanted.extend_from_slice(&bytes[..200_000]);
    assert!(reader.range("space/0", 4000..204_096).unwrap() == wanted);
    assert_eq!(reader.range("space/0", 5 << 20..(5 << 20) + 3).unwrap(), [0; 3]);
    assert_eq!(reader.range("nothing", 0..3).unwrap(), [0; 3]);
}

#[test]
fn a_catalog_that_is_replaced_is_opened_again() {
    let (_dir, store) = store();
    let web = Workload { name: "web".into(), ..Workload::default() };
    store.put_workload(&web).unwrap();
    for end in ["", "-wal", "-shm"] {
        fs::remove_file(store.dir().join(format!("catalog.sqlite{end}"))).unwrap();
    }
    assert_eq!(store.workloads().unwrap(), []);
    store.put_workload(&web).unwrap();
    assert_eq!(store.workloads().unwrap(), [web]);
}

#[test]
fn an_index_that_is_lost_or_lies_is_not_believed() {
    let (_dir, store) = store();
    let bytes = noise(1 << 17, 3);
    snap(&store, None, &bytes);
    let index = packs(&store)[0].with_extension("index");
    fs::write(&index, b"SNAPDIX1nonsense").unwrap();
    store.read("web", 1).unwrap().verify().unwrap();
    fs::remove_file(&index).unwrap();
    store.read("web", 1).unwrap().verify().unwrap();
}

#[test]
fn a_newer_store_is_refused_by_name() {
    let (_dir, store) = store();
    fs::write(store.dir().join("format"), "snapd store, version 9\n").unwrap();
    let error = Store::open(store.dir(), Options::default()).unwrap_err();
    assert!(matches!(error, Error::Newer { found: 9, known: 2, .. }), "{error}");
}

#[test]
fn one_writer_at_a_time_has_a_workload() {
    let (_dir, store) = store();
    let _writer = begin(&store, None).unwrap();
    assert!(matches!(begin(&store, None), Err(Error::Busy { .. })));
    store.begin(new("other", None)).unwrap();
}

#[test]
fn what_is_unchanged_comes_from_the_parent_and_a_restart_forgets() {
    let (_dir, store) = store();
    let bytes = noise(1 << 18, 4);
    snap(&store, None, &bytes);
    let mut writer = begin(&store, Some(1)).unwrap();
    writer.unchanged("space/0", 0..u64::MAX).unwrap();
    writer.stream("file/1", 0, b"first try").unwrap();
    writer.restart("file/1").unwrap();
    writer.stream("file/1", 0, b"second").unwrap();
    writer.commit(meta()).unwrap();
    let reader = store.read("web", 2).unwrap();
    assert_eq!(contents(&reader, "space/0", bytes.len() + 4096)[4096..], bytes);
    assert_eq!(contents(&reader, "file/1", 9), b"second\0\0\0");
}

#[test]
fn the_catalog_follows_lines_and_remembers() {
    let (_dir, store) = store();
    let mut web = Workload { name: "web".into(), state: "running".into(), ..Workload::default() };
    store.put_workload(&web).unwrap();
    (1..=3).for_each(|n| drop(snap(&store, (n > 1).then(|| n - 1), &n.to_le_bytes())));
    assert_eq!(store.restorable("web").unwrap(), [3, 2, 1]);
    store.rewind("web", Some(1)).unwrap();
    assert_eq!(store.restorable("web").unwrap(), [1], "the others are on another line now");
    snap(&store, Some(1), b"after a roll back");
    assert_eq!(store.restorable("web").unwrap(), [4, 1]);
    snap(&store, Some(4), b"and on");
    assert_eq!(store.restorable("web").unwrap(), [5, 4, 1]);
    store.mark_damaged("web", 5).unwrap();
    assert_eq!(store.restorable("web").unwrap(), [4, 1]);
    store.rewind("web", None).unwrap();
    assert_eq!(store.restorable("web").unwrap(), Vec::<u64>::new());
    snap(&store, None, b"fresh");
    assert_eq!(store.restorable("web").unwrap(), [6]);

    web.restarts = 2;
    store.put_workload(&web).unwrap();
    assert_eq!(store.workload("web").unwrap(), Some(web.clone()));
    assert_eq!(store.workloads().unwrap(), [web]);
    let (at, reason) = (Utc::now(), "a test".to_owned());
    let kind = EventKind::Crashed;
    let event = Event { at, workload: "web".into(), kind, seq: Some(3), reason, detail: None };
    let number = store.record_event(&event).unwrap();
    assert_eq!(store.events(Some("web"), 0).unwrap(), [(number, event)]);
    assert_eq!(store.events(None, number).unwrap(), []);
    store.set_fact("web", "key", Some("value")).unwrap();
    assert_eq!(store.fact("web", "key").unwrap().as_deref(), Some("value"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_sparse_stream_comes_back(
        writes in prop::collection::btree_map(0u64..2_000, 1usize..20_000, 0..12),
    ) {
        let (_dir, store) = store();
        let mut model = Vec::new();
        let mut writer = begin(&store, None).unwrap();
        let mut end = 0;
        for (page, len) in writes {
            let at = (page * 1500).max(end);
            let bytes = noise(len, page + 1);
            writer.stream("s", at, &bytes).unwrap();
            let start = usize::try_from(at).unwrap();
            model.resize(start, 0);
            model.extend_from_slice(&bytes);
            end = at + len as u64;
        }
        writer.commit(meta()).unwrap();
        let read = contents(&store.read("web", 1).unwrap(), "s", model.len());
        prop_assert!(read == model);
    }

    #[test]
    fn foreign_bytes_are_refused_and_never_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..400),
        as_manifest in any::<bool>(),
    ) {
        let (_dir, store) = store();
        snap(&store, None, b"x");
        if as_manifest {
            bytes.splice(0..0, *b"SNAPDMF1");
            fs::write(store.manifest("web", 1), &bytes).unwrap();
            prop_assert!(store.read("web", 1).is_err());
        } else {
            let pack = packs(&store)[0].clone();
            fs::remove_file(pack.with_extension("index")).unwrap();
            fs::write(&pack, &bytes).unwrap();
            let verified = store.read("web", 1).and_then(|reader| reader.verify());
            prop_assert!(verified.is_err());
        }
    }
}

/// It was tried again and again.
#[test]
fn where_no_directory_can_be_made_no_store_is() {
    for place in ["/proc/store", "/proc/no/store"] {
        let refused = Store::create(std::path::Path::new(place), Options::default()).unwrap_err();
        let told = refused.to_string();
        assert!(told.contains("create") && told.contains("/proc/"), "{told}");
    }
}
