use super::*;
use std::io::Read;

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
        let mut word = [0; 5];
        self.0.stdout.as_mut().unwrap().read_exact(&mut word).unwrap();
        assert_eq!(&word, b"ready");
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

    let mut collector = Collector::new([child.pid()].into(), &[]).unwrap();
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
    let mut collector = Collector::new([child.pid()].into(), &[]).unwrap();
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
    let mut collector = Collector::new(BTreeSet::new(), &[]).unwrap();
    let watch = Inotify::init(InitFlags::IN_CLOEXEC).unwrap();
    let fd = watch.as_fd().try_clone_to_owned().unwrap();
    collector.opened(me(), fd, "test").unwrap();
    let mut obstacles = Vec::new();
    collector.finish(false, &mut obstacles).unwrap();
    let codes: Vec<_> = obstacles.iter().map(|obstacle| obstacle.cause.code).collect();
    assert_eq!(codes, ["inotify:unsupported"]);
}
