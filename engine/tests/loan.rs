//! Real processes, frozen, lent out and let go: what they do meanwhile, and that they never notice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use engine::inventory::{Life, Pid, Tid};
use engine::remote::{Arg, Batch, Caller, RemoteFd};
use engine::tracee::Tree;
use nix::libc;

const SOON: Duration = Duration::from_secs(30);

/// A process of the test, which ends with it.
struct Subject(Child);

impl Subject {
    fn start(program: &str, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        let child = command.args(args).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        Self(child)
    }

    fn pid(&self) -> Pid {
        Pid(self.0.id().cast_signed())
    }

    fn tid(&self) -> Tid {
        Tid(self.pid().0)
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.pid())).unwrap()
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // Whoever was killed in a frozen tree has been reaped there.
        self.0.kill().and_then(|()| self.0.wait().map(drop)).unwrap_or_default();
    }
}

#[test]
fn a_borrowed_thread_makes_calls_and_is_given_back_as_it_was() {
    let subject = Subject::start("sleep", &["1000"]);
    let before = (subject.file("maps"), subject.file("syscall"));
    let mut tree = Tree::freeze(&[subject.pid()], SOON).unwrap();
    let thread = tree.thread(subject.tid()).unwrap();
    let mut loan = tree.borrow(subject.tid()).unwrap();
    let mut batch = Batch::default();
    batch.call("getpid", libc::SYS_getpid, []);
    batch.call("getcwd", libc::SYS_getcwd, [Arg::Out(4096), 4096.into()]);
    batch.call("chdir", libc::SYS_chdir, [Arg::In(b"/proc\0".into())]);
    batch.call("getcwd", libc::SYS_getcwd, [Arg::Out(64), 64.into()]);
    batch.call("close", libc::SYS_close, [(-1).into()]);
    let replies = loan.perform(&batch).unwrap();
    assert_eq!(replies[0].value().unwrap(), i64::from(subject.pid().0));
    let here = std::env::current_dir().unwrap();
    assert!(replies[1].out.starts_with(here.as_os_str().as_encoded_bytes()));
    assert!(replies[3].out.starts_with(b"/proc\0"));
    assert_eq!(replies[4].result, -i64::from(libc::EBADF));
    loan.finish().unwrap();
    assert_eq!(tree.thread(subject.tid()).unwrap(), thread);
    tree.thaw().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(subject.file("maps"), before.0);
    assert!(subject.file("syscall").split(' ').next_back() == before.1.split(' ').next_back());
}

#[test]
fn a_large_answer_gets_a_larger_area_and_many_calls_travel_in_parts() {
    let subject = Subject::start("sleep", &["1000"]);
    let mut tree = Tree::freeze(&[subject.pid()], SOON).unwrap();
    let mut loan = tree.borrow(subject.tid()).unwrap();
    let mut batch = Batch::default();
    let zero = Arg::In(b"/dev/zero\0".into());
    batch.call("open", libc::SYS_open, [zero, 0.into()]);
    let fd = loan.perform(&batch).unwrap()[0].value().unwrap();
    let mut batch = Batch::default();
    batch.call("read", libc::SYS_read, [fd.into(), Arg::Out(3 << 20), (3 << 20).into()]);
    for _ in 0..1000 {
        batch.call("getppid", libc::SYS_getppid, []);
    }
    let replies = loan.perform(&batch).unwrap();
    assert_eq!((replies[0].result, replies[0].out.len()), (3 << 20, 3 << 20));
    assert!(replies[1..].iter().all(|reply| reply.result == i64::from(std::process::id())));
    let stolen = loan.steal(RemoteFd(i32::try_from(fd).unwrap())).unwrap();
    let name = std::fs::read_link(format!("/proc/self/fd/{}", stolen.as_raw_fd())).unwrap();
    assert_eq!(name.to_str(), Some("/dev/zero"));
    assert!(!std::path::Path::new(&format!("/proc/{}/fd/{fd}", subject.pid())).exists());
}

#[test]
fn a_tree_is_frozen_whole_and_a_stopped_process_stays_stopped() {
    let script = "sleep 1000 & sleep 1001 & kill -STOP $!; wait";
    let subject = Subject::start("sh", &["-c", script]);
    let mut tree = Tree::freeze(&[subject.pid()], SOON).unwrap();
    let members = tree.members().clone();
    assert_eq!(members.len(), 3);
    let children: Vec<_> = members.iter().filter(|(pid, _)| **pid != subject.pid()).collect();
    assert!(children.iter().all(|(_, member)| member.parent == Some(subject.pid())));
    let lives: Vec<_> = children.iter().map(|(_, member)| member.life).collect();
    let stopped = Life::Stopped { signal: libc::SIGSTOP, unreported: false };
    assert_eq!(lives, [Life::Running, stopped]);
    let last = *children[1].0;
    let mut loan = tree.borrow(Tid(last.0)).unwrap();
    let mut batch = Batch::default();
    batch.call("getpid", libc::SYS_getpid, []);
    assert_eq!(loan.perform(&batch).unwrap()[0].result, i64::from(last.0));
    loan.finish().unwrap();
    tree.thaw().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let state = |pid: Pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
    };
    assert_eq!((state(*children[0].0), state(last)), ('S', 'T'));
    let tree = Tree::freeze(&[subject.pid()], SOON).unwrap();
    tree.kill().unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{last}")).exists() || state(last) == 'Z');
}

#[test]
fn who_cannot_be_frozen_is_refused_by_name() {
    let code = |pid| match Tree::freeze(&[pid], SOON).unwrap_err() {
        engine::error::Error::Refused(obstacles) => obstacles[0].cause.code,
        other => panic!("{other}"),
    };
    assert_eq!(code(Pid(1)), "process:init");
    assert_eq!(code(Pid(2)), "process:kernel-thread");
    assert_eq!(code(Pid(std::process::id().cast_signed())), "process:self");
    assert_eq!(code(Pid(i32::MAX)), "process:gone");
}
