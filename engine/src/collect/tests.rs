use super::*;
use crate::sys::kernel_at_least;
use std::io::{Read, Write};

use crate::sys::here::Here;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::F_SETOWN;

fn me() -> Pid {
    Pid(std::process::id().cast_signed())
}

/// A child of our own, standing still at its first read.
struct Child(std::process::Child);

impl Child {
    fn spawn(script: &str) -> Self {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &format!("{script}; read x")]);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        Self(command.spawn().unwrap())
    }

    /// Until then it may not have executed its program yet, and hold our descriptors.
    fn until_ready(&mut self) {
        let mut word = [0; 6];
        self.0.stdout.as_mut().unwrap().read_exact(&mut word).unwrap();
        assert_eq!(&word, b"ready\n");
    }

    /// Has it go on with its script.
    fn goes_on(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        self.until_ready();
    }

    fn pid(&self) -> Pid {
        Pid(self.0.id().cast_signed())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn shared_open_files_are_found_once() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().display();
    let mut child = Child::spawn(&format!("exec 5<{path} 6<&5 7<{path}; echo ready"));
    child.until_ready();

    let nobody = Familiar::default();
    let mut collector = Collector::new([child.pid()].into(), &[], &nobody).unwrap();
    let table = collector.table(child.pid()).unwrap();
    assert_eq!(collector.table(child.pid()).unwrap(), table);
    let file_at = |number| collector.descriptors[&(table, RemoteFd(number))].open_file;
    assert_eq!(file_at(5), file_at(6), "dup(2) shares the open file");
    assert_ne!(file_at(5), file_at(7), "open(2) does not");
    assert_ne!(collector.space(child.pid()).unwrap(), collector.space(me()).unwrap());
}

#[test]
fn a_pipe_held_outside_is_an_obstacle_by_its_name() {
    let mut child = Child::spawn("echo ready");
    child.until_ready();
    let nobody = Familiar::default();
    let mut collector = Collector::new([child.pid()].into(), &[], &nobody).unwrap();
    collector.table(child.pid()).unwrap();
    let mut obstacles = Vec::new();
    let collected = collector.finish(false, &mut obstacles).unwrap();
    assert!(objects::kinds(&collected).contains("pipe"));
    let split: Vec<_> = obstacles.iter().filter(|one| one.cause.code == "pipe:split").collect();
    assert!(split.iter().any(|one| one.object.starts_with("fd 0 (pipe:[")), "{obstacles:?}");
}

#[test]
fn what_no_kind_claims_is_named() {
    use nix::sys::inotify::{InitFlags, Inotify};
    use std::os::fd::AsFd;
    let nobody = Familiar::default();
    let mut collector = Collector::new(BTreeSet::new(), &[], &nobody).unwrap();
    let watch = Inotify::init(InitFlags::IN_CLOEXEC).unwrap();
    let fd = watch.as_fd().try_clone_to_owned().unwrap();
    collector.opened(me(), fd, "test").unwrap();
    let mut obstacles = Vec::new();
    collector.finish(false, &mut obstacles).unwrap();
    let codes: Vec<_> = obstacles.iter().map(|obstacle| obstacle.cause.code).collect();
    assert_eq!(codes, ["inotify:unsupported"]);
}

/// Looks at the files of a child, has it go on with `script`, does something itself to its descriptor 5, and
/// collects: how many are familiar still, how many of these are watched, and whether all is told that is told
/// without looking before. From so `many` on, they are watched.
fn familiar_after(many: usize, script: &str, ours: impl FnMut(&OwnedFd)) -> (usize, usize, bool) {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("folder");
    fs::create_dir(&place).unwrap();
    let script = format!(
        "cd {}; echo 0123456789 >file; exec 5<>file; echo ready; read x; {script}; echo ready",
        place.display()
    );
    let mut child = Child::spawn(&script);
    child.until_ready();
    let familiar = familiar::look(&[child.pid()], &[], many).unwrap();
    let held = familiar.descriptor((child.pid(), 5), me()).is_some();
    assert_eq!(held, many > 1, "who is watched is not held");
    child.goes_on();
    let process = pidfd::open(child.pid()).unwrap();
    pidfd::take(process.as_fd(), 5).iter().for_each(ours);
    let told = |familiar: &Familiar| {
        let mut collector = Collector::new([child.pid()].into(), &[], familiar).unwrap();
        collector.table(child.pid()).unwrap();
        let found = collector.registry.found.iter().map(|(found, _)| found);
        let watched = found.clone().filter(|one| matches!(one.told, Told::Position(_))).count();
        let known = (found.filter(|one| one.familiar.is_some()).count(), watched);
        let mut collected = collector.finish(false, &mut Vec::new()).unwrap();
        collected.objects.retain(|_, record| record.kind == "file");
        let of_files = |id: &OpenFileId, file: &OpenFile| {
            let kept = collected.objects.contains_key(&file.refers_to().0);
            kept.then(|| (*id, file.clone()))
        };
        let files = collected.open_files.iter().filter_map(|(id, file)| of_files(id, file));
        let files: BTreeMap<_, _> = files.collect();
        (known, (files, collected.objects, collected.descriptors))
    };
    let ((known, with), (_, without)) = (told(&familiar), told(&Familiar::default()));
    assert!(known.0 == 0 || !with.0.is_empty());
    (known.0, known.1, with == without)
}

/// Whatever is done to it, and whether it is familiar then, if it is held; or if it is watched.
const DONE: [(&str, usize, usize); 18] = [
    ("true", 1, 1),
    ("head -c 3 <&5", 1, 0), // The first reading since it was written.
    ("dd bs=1 skip=3 count=0 <&5 2>/dev/null", 1, 1),
    ("exec 6<&5", 1, 1),
    ("exec 6<file", 1, 1),
    ("echo more >&5", 0, 0),
    ("echo a fresh start >file", 0, 0),
    ("echo 9876543210 >file", 0, 0),
    ("truncate -s 0 file; truncate -s 11 file", 0, 0),
    ("mv file other", 0, 0),
    ("mv ../folder ../other", 0, 0),
    ("rm file", 0, 0),
    ("cp file other; mv other file", 0, 0),
    ("ln file other", 0, 0),
    ("chmod 600 file", 0, 0),
    ("flock 5", 1, 0),
    ("exec 5<>other", 0, 0),
    ("exec 5<&-", 0, 0),
];

#[test]
fn whatever_becomes_of_a_familiar_file_is_told() {
    let nothing = |_: &OwnedFd| {};
    let own = |fd: &OwnedFd| {
        let mut batch = Batch::default();
        let args = [fd.as_raw_fd().into(), F_SETOWN.into(), me().0.into()];
        batch.call("fcntl", SYS_fcntl, args);
        Here.perform(&batch).unwrap()[0].value().unwrap();
    };
    let append = |fd: &OwnedFd| drop(fcntl(fd, FcntlArg::F_SETFL(OFlag::O_APPEND)).unwrap());
    // Only newer kernels have any watched.
    let all = [usize::MAX, 1].into_iter().filter(|many| *many > 1 || kernel_at_least(6, 13));
    for many in all {
        let held = usize::from(many > 1);
        assert_eq!(familiar_after(many, "true", append), (held, 0, true));
        assert_eq!(familiar_after(many, "true", own), (held, 0, true));
        // It may have the very same row then, and nothing else to tell.
        assert!(familiar_after(many, "exec 5<&-; exec 5<>file", nothing).2);
        for (script, familiar, watched) in DONE {
            let (familiar, watched) = if many == 1 { (watched, watched) } else { (familiar, 0) };
            let script = format!("{{ {script}; }} >/dev/null");
            let seen = familiar_after(many, &script, nothing);
            assert_eq!(seen, (familiar, watched, true), "{script}");
        }
    }
}
