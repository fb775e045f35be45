//! What a tracker says has not changed has not: whatever a program does to its memory, an image that takes
//! from the one before what is unchanged has all that is there, byte for byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use std::collections::BTreeMap;
use std::fs::{File, read_to_string};
use std::io::{self, BufRead, BufReader};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use engine::error::{Error, Result};
use engine::family;
use engine::image::{Contents, ImageSink};
use engine::inventory::{Inventory, Pid};
use engine::session::{Foresight, Frozen, Options, Told, Tracker, room};
use tempfile::TempDir;

const PAGE: u64 = 4096;
const ROUNDS: usize = 60;
const ROUNDS_FULL: usize = 2000;

/// The program, and a folder of its own: whoever truncates a file takes pages from all who have it mapped.
struct Subject(Child, #[expect(dead_code, reason = "removed when it is dropped")] TempDir);

impl Subject {
    fn start() -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let program = folder.path().join("torture");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/torture.c");
        let mut compiler = Command::new("gcc");
        compiler.args(["-O1", "-Wall", "-pthread", "-o"]).arg(&program).arg(source);
        assert!(compiler.status().unwrap().success());
        let mut command = Command::new(&program);
        // A loan in a pause lets the kernel write there, which compares as a change, but is made anew whenever
        // a thread goes on.
        command.env("GLIBC_TUNABLES", "glibc.pthread.rseq=0");
        command
            .arg(folder.path().join("torture.file"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "READY\n");
        Self(child, folder)
    }

    fn pid(&self) -> Pid {
        Pid(self.0.id().cast_signed())
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait().map(drop)).unwrap_or_default();
    }
}

type Pages = BTreeMap<u64, Vec<u8>>;

/// An image in memory, of spaces.
#[derive(Default)]
struct Image {
    parent: Option<Inventory>,
    inventory: Option<Inventory>,
    before: BTreeMap<Contents, Pages>,
    now: BTreeMap<Contents, Pages>,
    taken_over: usize,
}

impl ImageSink for Image {
    fn inventory(&mut self, inventory: &Inventory) -> io::Result<()> {
        self.inventory = Some(inventory.clone());
        Ok(())
    }
    fn bytes(&mut self, of: Contents, at: u64, bytes: &[u8]) -> io::Result<()> {
        let pages = self.now.entry(of).or_default();
        assert!(pages.last_key_value().is_none_or(|(last, _)| *last < at), "offsets ascend");
        let page = |(index, page): (usize, &[u8])| (at + index as u64 * PAGE, page.to_vec());
        pages.extend(bytes.chunks(4096).enumerate().map(page));
        Ok(())
    }
    fn restart(&mut self, _: Contents) -> io::Result<()> {
        Ok(())
    }
    fn unchanged(&mut self, of: Contents, range: Range<u64>) -> io::Result<()> {
        let pages = self.now.entry(of).or_default();
        assert!(pages.last_key_value().is_none_or(|(last, _)| *last < range.start));
        let known = self.before.get(&of).expect("there is one before").range(range);
        for (at, page) in known {
            self.taken_over += 1;
            pages.insert(*at, page.clone());
        }
        Ok(())
    }
}

/// Compares all of the private memory of a process that stands with an image. What an image lacks is zeros,
/// or its file's.
fn compare(pid: Pid, image: &Pages, round: usize) {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    for line in read_to_string(format!("/proc/{pid}/maps")).unwrap().lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let special = words.get(5).is_some_and(|name| name.starts_with("[v"));
        if !words[1].starts_with('r') || !words[1].ends_with('p') || special {
            continue;
        }
        let (start, end) = words[0].split_once('-').unwrap();
        let bound = |text| u64::from_str_radix(text, 16).unwrap();
        let (start, end) = (bound(start), bound(end));
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        if memory.read_exact_at(&mut bytes, start).is_err() {
            continue; // Behind the end of its file.
        }
        for (page, at) in bytes.chunks(4096).zip((start..).step_by(4096)) {
            match image.get(&at) {
                Some(known) => assert!(known == page, "round {round}: page {at:x} of {line}"),
                None if words[4] != "0" => {}
                None => assert!(page.iter().all(|byte| *byte == 0), "round {round}: {at:x} lacks"),
            }
        }
    }
}

/// Takes an image, and compares it with what is there.
fn round(pid: Pid, trackers: &mut Vec<Tracker>, image: &mut Image, number: usize) -> Result<()> {
    let mut known = std::mem::take(trackers);
    let pids = family::of(&[pid]);
    let foresight = Foresight::of(&pids, &mut known, image.parent.as_ref());
    let room = room(&pids, &foresight);
    let frozen = Frozen::freeze(&[pid], Duration::from_secs(30))?;
    let options = Options { foresight, trackers: Some(&known), ..Options::default() };
    let inventoried = frozen.inventory(&options)?;
    assert_eq!(inventoried.obstacles(), []);
    let of = Contents::Space(inventoried.inventory().processes[&pid].space);
    let running = number % 2 == 1;
    let mut captured =
        if running { inventoried.capture_running(room) } else { inventoried.capture() }?;
    *trackers = captured.trackers()?;
    let written = captured.write(image)?;
    compare(pid, &image.now[&of], number);
    drop(written.thaw()?);
    trackers.iter_mut().for_each(|one| one.told = Told::default());
    Ok(())
}

#[test]
fn nothing_that_changed_is_missed() {
    let subject = Subject::start();
    let full = std::env::var_os("SNAPD_FULL").is_some_and(|value| value == "1");
    let (mut image, mut trackers) = (Image::default(), Vec::<Tracker>::new());
    for number in 0..if full { ROUNDS_FULL } else { ROUNDS } {
        match round(subject.pid(), &mut trackers, &mut image, number) {
            // Of what was foreseen. They go on, and speak of the image before.
            Err(Error::Changed(_)) => image.now.clear(),
            done => {
                done.unwrap();
                image.before = std::mem::take(&mut image.now);
                image.parent = image.inventory.take();
            }
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    assert!(image.taken_over > ROUNDS, "{} pages", image.taken_over);
}
