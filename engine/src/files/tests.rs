use super::capture::{inode_of, tells_of_mapped_writes};
use super::*;
use crate::image::{Contents, ImageSink, ImageSource};
use crate::inventory::{FileId, Inventory, ObjectId};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What a store would hold.
#[derive(Debug, Clone, Default)]
struct Memory {
    streams: BTreeMap<Contents, BTreeMap<u64, Vec<u8>>>,
    unchanged: usize,
    parent: BTreeMap<Contents, BTreeMap<u64, Vec<u8>>>,
}

impl ImageSink for Memory {
    fn inventory(&mut self, _: &Inventory) -> io::Result<()> {
        Ok(())
    }

    fn bytes(&mut self, of: Contents, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.streams.entry(of).or_default().insert(at, bytes.to_vec());
        Ok(())
    }

    fn restart(&mut self, of: Contents) -> io::Result<()> {
        self.streams.remove(&of);
        Ok(())
    }

    fn unchanged(&mut self, of: Contents, _: Range<u64>) -> io::Result<()> {
        self.unchanged += 1;
        let before = self.parent.get(&of).cloned().unwrap_or_default();
        self.streams.insert(of, before);
        Ok(())
    }
}

impl ImageSource for Memory {
    fn inventory(&self) -> io::Result<Inventory> {
        Ok(Inventory::default())
    }

    fn bytes(
        &self,
        of: Contents,
        visit: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let runs = self.streams.get(&of).into_iter().flatten();
        runs.into_iter().try_for_each(|(at, bytes)| visit(*at, bytes))
    }
}

struct Place {
    folder: TempDir,
    selection: Selection,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tracked = folder.path().join("tracked");
        fs::create_dir(&tracked).unwrap();
        Self { folder, selection: Selection { tracked: vec![tracked], spared: Vec::new() } }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("tracked").join(name)
    }

    fn capture(&self, previous: &Files, memory: &mut Memory) -> Captured {
        let mut capture = Capture::new(&self.selection, previous);
        capture.read_ahead(&BTreeSet::new(), memory).unwrap();
        capture.finish(&BTreeSet::new(), memory).unwrap()
    }

    fn roll_back(&self, files: &Files, memory: &Memory, time: &str) -> Summary {
        let undone = self.folder.path().join("undone").join(time);
        let how = RollBack { undone, ..RollBack::default() };
        roll_back(files, memory, &how).unwrap()
    }

    /// Everything there is, with contents, modes and modification times.
    fn snapshot(&self) -> BTreeMap<PathBuf, (u32, i64, Vec<u8>)> {
        fn walk(path: &Path, found: &mut BTreeMap<PathBuf, (u32, i64, Vec<u8>)>) {
            let meta = fs::symlink_metadata(path).unwrap();
            let contents = if meta.is_symlink() {
                fs::read_link(path).unwrap().into_os_string().into_encoded_bytes()
            } else if meta.is_file() {
                fs::read(path).unwrap()
            } else {
                Vec::new()
            };
            let times = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
            found.insert(path.to_owned(), (meta.mode(), times, contents));
            if meta.is_dir() {
                for child in fs::read_dir(path).unwrap() {
                    walk(&child.unwrap().path(), found);
                }
            }
        }
        let mut found = BTreeMap::new();
        walk(&self.folder.path().join("tracked"), &mut found);
        found
    }
}

fn settle() {
    std::thread::sleep(std::time::Duration::from_millis(30));
}

#[test]
fn a_tree_goes_back_to_what_it_was() {
    let place = Place::new();
    fs::write(place.path("kept"), "as it was").unwrap();
    fs::write(place.path("grown"), "one\n").unwrap();
    fs::write(place.path("old name"), "renamed").unwrap();
    fs::write(place.path("deleted"), "gone").unwrap();
    fs::create_dir(place.path("dir")).unwrap();
    fs::write(place.path("dir/inside"), "in").unwrap();
    fs::hard_link(place.path("kept"), place.path("other name of kept")).unwrap();
    symlink("kept", place.path("link")).unwrap();
    fs::set_permissions(place.path("grown"), fs::Permissions::from_mode(0o440)).unwrap();
    let mut memory = Memory::default();
    let captured = place.capture(&Files::default(), &mut memory);
    assert_eq!(captured.notes, Vec::<String>::new());
    let before = place.snapshot();

    fs::write(place.path("grown"), "one\ntwo\n").unwrap();
    fs::rename(place.path("old name"), place.path("new name")).unwrap();
    fs::remove_file(place.path("deleted")).unwrap();
    fs::remove_dir_all(place.path("dir")).unwrap();
    fs::write(place.path("dir"), "now a file").unwrap();
    fs::remove_file(place.path("link")).unwrap();
    symlink("elsewhere", place.path("link")).unwrap();
    fs::create_dir(place.path("new dir")).unwrap();
    fs::write(place.path("new dir/x"), "x").unwrap();
    fs::write(place.path("replacement"), "replaced").unwrap();
    fs::rename(place.path("replacement"), place.path("kept")).unwrap();

    let summary = place.roll_back(&captured.files, &memory, "1");
    assert_eq!(place.snapshot(), before);
    let names = (inode_of(&place.path("kept")), inode_of(&place.path("other name of kept")));
    assert_eq!(names.0, names.1, "names of one file are one file again");
    let undone = summary.undone.unwrap();
    let kept = |name: &str| {
        let path = place.path(name);
        fs::read_to_string(undone.join(path.strip_prefix("/").unwrap())).unwrap()
    };
    assert_eq!((kept("grown").as_str(), kept("new dir/x").as_str()), ("one\ntwo\n", "x"));
    assert_eq!(kept("kept"), "replaced");
}

#[test]
fn what_is_as_it_was_is_neither_read_nor_written() {
    let place = Place::new();
    fs::write(place.path("a"), "a").unwrap();
    settle();
    let mut memory = Memory::default();
    let first = place.capture(&Files::default(), &mut memory);
    assert_eq!((first.bytes, memory.unchanged), (1, 0));
    let mut child = Memory { parent: memory.streams.clone(), ..Memory::default() };
    let second = place.capture(&first.files, &mut child);
    assert_eq!((second.bytes, child.unchanged), (0, 1));
    assert_eq!(second.files, first.files);
    let summary = place.roll_back(&second.files, &child, "1");
    assert_eq!(summary, Summary::default());
}

#[test]
fn a_file_just_written_is_read_again_in_the_pause() {
    // Two writes within one tick of the clock can leave the same times: what was read ahead must not
    // be believed then.
    let place = Place::new();
    let mut memory = Memory::default();
    let previous = Files::default();
    let mut capture = Capture::new(&place.selection, &previous);
    fs::write(place.path("a"), "one").unwrap();
    capture.read_ahead(&BTreeSet::new(), &mut memory).unwrap();
    fs::write(place.path("a"), "two").unwrap();
    let captured = capture.finish(&BTreeSet::new(), &mut memory).unwrap();
    fs::write(place.path("a"), "three").unwrap();
    place.roll_back(&captured.files, &memory, "1");
    assert_eq!(fs::read_to_string(place.path("a")).unwrap(), "two");
}

/// Of a database little has changed, and only that is written: a restore of a large one takes no longer
/// than reading it.
#[test]
fn only_pages_that_differ_are_written() {
    use std::os::unix::fs::FileExt;
    let place = Place::new();
    let bytes: Vec<u8> = (0..1_u32 << 20).map(|n| (n >> 8).to_le_bytes()[0] | 1).collect();
    fs::write(place.path("a"), &bytes).unwrap();
    let mut memory = Memory::default();
    let captured = place.capture(&Files::default(), &mut memory);
    let file = fs::File::options().read(true).write(true).open(place.path("a")).unwrap();
    for page in [3, 4, 100] {
        file.write_all_at(&[0], page * 4096 + 17).unwrap();
    }
    let before = written();
    let rewrite = |changed: &mut usize| {
        let entry = captured.files.entries.iter().find(|one| one.stamp.size > 0).unwrap();
        let counted = &mut || {
            *changed += 1;
            Ok(())
        };
        super::rewrite::rewrite(&file, entry.file(), 1 << 20, &memory, counted).unwrap()
    };
    let mut changed = 0;
    assert!(rewrite(&mut changed));
    assert_eq!(written() - before, 3 * 4096);
    assert!(!rewrite(&mut changed) && changed == 1);
    assert!(fs::read(place.path("a")).unwrap() == bytes);
}

/// How much this thread has written so far.
fn written() -> u64 {
    let io = fs::read_to_string("/proc/thread-self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap()
}

#[test]
fn what_others_are_writing_is_left_alone_and_said() {
    let place = Place::new();
    fs::write(place.path("a"), "then").unwrap();
    let mut memory = Memory::default();
    let captured = place.capture(&Files::default(), &mut memory);
    fs::write(place.path("a"), "now").unwrap();
    let how = RollBack { held: [place.path("a")].into(), ..RollBack::default() };
    let summary = roll_back(&captured.files, &memory, &how).unwrap();
    assert_eq!(summary.held, [place.path("a")]);
    assert_eq!(fs::read_to_string(place.path("a")).unwrap(), "now");
}

#[test]
fn only_the_last_three_roll_backs_are_kept() {
    let place = Place::new();
    fs::write(place.path("a"), "0").unwrap();
    let mut memory = Memory::default();
    let captured = place.capture(&Files::default(), &mut memory);
    for time in 1..=5 {
        fs::write(place.path("a"), time.to_string()).unwrap();
        place.roll_back(&captured.files, &memory, &time.to_string());
    }
    let left = fs::read_dir(place.folder.path().join("undone")).unwrap();
    let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["3", "4", "5"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever becomes of a sparse file, it comes back byte for byte.
    #[test]
    fn contents_come_back(
        then in prop::collection::vec((0u64..300_000, prop::collection::vec(any::<u8>(), 1..9000)), 0..6),
        now in prop::collection::vec((0u64..300_000, prop::collection::vec(any::<u8>(), 1..9000)), 0..6),
        length in 0u64..400_000,
    ) {
        use std::os::unix::fs::FileExt;
        let place = Place::new();
        let file = fs::File::create(place.path("a")).unwrap();
        for (at, bytes) in &then {
            file.write_all_at(bytes, *at).unwrap();
        }
        let before = fs::read(place.path("a")).unwrap();
        let mut memory = Memory::default();
        let captured = place.capture(&Files::default(), &mut memory);
        for (at, bytes) in &now {
            file.write_all_at(bytes, *at).unwrap();
        }
        file.set_len(length).unwrap();
        place.roll_back(&captured.files, &memory, "1");
        prop_assert_eq!(fs::read(place.path("a")).unwrap(), before);
    }
}

/// A compiler's assembler reads a file that is removed a moment later: a restore of that moment finds
/// it again. One that is still there is not touched, whatever it holds by now: others may have written
/// it.
#[test]
fn what_was_only_read_is_put_back_if_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["gone", "there"].map(|name| folder.path().join(name));
    let candidates = paths.iter().map(|path| {
        fs::write(path, "then").unwrap();
        let (device, inode) = inode_of(path);
        Candidate { path: path.clone(), device, inode, mapped: false, read_only: true }
    });
    let (selection, mut memory) = (Selection::default(), Memory::default());
    let previous = Files::default();
    let capture = Capture::new(&selection, &previous);
    let files = capture.finish(&candidates.collect(), &mut memory).unwrap().files;
    assert!(files.entries.iter().all(|entry| entry.read_only) && files.entries.len() == 2);
    fs::remove_file(&paths[0]).unwrap();
    fs::write(&paths[1], "now").unwrap();
    let how = RollBack { undone: folder.path().join("undone"), ..RollBack::default() };
    let summary = roll_back(&files, &memory, &how).unwrap();
    assert_eq!(summary.changed, [paths[0].clone()]);
    assert_eq!(fs::read_to_string(&paths[0]).unwrap(), "then");
    assert_eq!(fs::read_to_string(&paths[1]).unwrap(), "now");
}

/// What was looked at closely and is as it was then is not looked at again; what has changed by the time that it is
/// read is not relied on.
#[test]
fn what_was_foreseen_is_not_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["a", "b", "c"].map(|name| folder.path().join(name));
    paths.iter().for_each(|path| fs::write(path, "then").unwrap());
    settle();
    let looked = |path: &PathBuf| {
        let candidate = candidate(path, false).pop_first().unwrap();
        Looked { candidate, stat: nix::sys::stat::lstat(path).unwrap() }
    };
    let open = paths.iter().flat_map(|path| candidate(path, false)).collect();
    let (selection, previous) = (Selection::default(), Files::default());
    let mut memory = Memory::default();
    let mut capture = Capture::new(&selection, &previous);
    capture.read_ahead(&open, &mut memory).unwrap();
    let all: Vec<_> = paths.iter().map(looked).collect();
    fs::write(&paths[1], "now").unwrap();
    capture.foresee(&all, &mut memory).unwrap();
    fs::remove_file(&paths[2]).unwrap();
    // As the tree has them; the last has changed, of all that was looked at, and is found anew or not at all.
    let same = AsBefore(vec![(ObjectId(4), Some(0)), (ObjectId(7), Some(1)), (ObjectId(9), None)]);
    assert_eq!(capture.candidates(&Inventory::default(), &same), BTreeSet::new());
    let captured = capture.finish(&candidate(&paths[1], false), &mut memory).unwrap();
    let found: Vec<_> = captured.files.entries.iter().map(Entry::path).collect();
    assert_eq!(found, [&paths[0], &paths[1]]);
    let contents = |at: usize| {
        let id = captured.files.entries[at].id;
        memory.streams[&Contents::File(FileId(id))][&0].clone()
    };
    assert_eq!((contents(0), contents(1)), (b"then".to_vec(), b"now".to_vec()));
}

fn candidate(path: &Path, mapped: bool) -> BTreeSet<Candidate> {
    let (device, inode) = inode_of(path);
    [Candidate { path: path.into(), device, inode, mapped, read_only: false }].into()
}

/// Its times do not tell of a second write to a page that is dirty: so it is written back before it is read,
/// and the first write after that moves them.
#[test]
fn a_mapped_file_is_read_again_only_if_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mapped");
    fs::write(&path, [1; 8192]).unwrap();
    let file = fs::File::options().read(true).write(true).open(&path).unwrap();
    let write = mapped_at(&file, 8192);
    write(2);
    settle();
    let (selection, previous, open) =
        (Selection::default(), Files::default(), candidate(&path, true));
    let taken = |byte: Option<u8>| {
        let mut memory = Memory::default();
        let mut capture = Capture::new(&selection, &previous);
        capture.read_ahead(&open, &mut memory).unwrap();
        byte.inspect(|byte| write(*byte));
        let captured = capture.finish(&open, &mut memory).unwrap();
        (captured.bytes, memory.streams.into_values().next().unwrap()[&0][0])
    };
    // Elsewhere than on file systems that were seen to tell, nobody believes them.
    let unwritten = if tells_of_mapped_writes(&path) { 8192 } else { 2 * 8192 };
    assert_eq!(taken(None), (unwritten, 2));
    assert_eq!(taken(Some(3)), (2 * 8192, 3));
}

/// Maps a file, and gives what writes to its first byte, as a program does.
fn mapped_at(file: &fs::File, len: i64) -> impl Fn(u8) {
    use crate::remote::{Arg, Caller};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;
    let mut batch = crate::remote::Batch::default();
    let args = [0, len, 3, 1, i64::from(file.as_raw_fd()), 0].map(Arg::Value);
    batch.call("mmap", nix::libc::SYS_mmap, args);
    let at = crate::sys::here::Here.perform(&batch).unwrap()[0].result;
    let memory = fs::File::options().write(true).open("/proc/self/mem").unwrap();
    move |byte| memory.write_all_at(&[byte], at.cast_unsigned()).unwrap()
}

/// Threads of the sink read it: what it holds comes whole, and so do its holes.
#[test]
fn a_large_file_comes_whole() {
    use std::os::unix::fs::FileExt;
    let place = Place::new();
    let file = fs::File::create(place.path("large")).unwrap();
    let bytes: Vec<u8> = (0..20_u32 << 20).map(|n| (n >> 7).to_le_bytes()[0] | 1).collect();
    file.write_all_at(&bytes, 1 << 20).unwrap();
    file.write_all_at(b"end", 30 << 20).unwrap();
    settle();
    let mut memory = Memory::default();
    let captured = place.capture(&Files::default(), &mut memory);
    let before = fs::read(place.path("large")).unwrap();
    assert!(captured.bytes >= 20 << 20 && captured.bytes < 25 << 20, "{}", captured.bytes);
    file.set_len(0).unwrap();
    place.roll_back(&captured.files, &memory, "1");
    assert!(fs::read(place.path("large")).unwrap() == before);
}
