//! Trees that change while they are being frozen: by forks, by execs of threads, by vfork.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use engine::error::Error;
use engine::inventory::Pid;
use engine::remote::{Batch, Caller};
use engine::tracee::Tree;
use nix::libc;

fn start(command: &mut Command) -> (Child, Pid) {
    let child = command.stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let pid = Pid(child.id().cast_signed());
    (child, pid)
}

fn compiled(directory: &Path, name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checker").join(name);
    let program = directory.join("program");
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-pthread", "-w", "-o"]).arg(&program).arg(source);
    assert!(compiler.status().unwrap().success());
    program
}

/// Freezes `times`, borrows the first thread that is left, and says how many members there were at most.
fn freeze_again_and_again(root: Pid, times: u32) -> usize {
    let mut most = 0;
    for _ in 0..times {
        let mut tree = Tree::freeze(&[root], Duration::from_secs(30)).unwrap();
        most = most.max(tree.members().len());
        let last = tree.members().values().rev().find_map(|member| member.threads.last().copied());
        let mut loan = tree.borrow(last.unwrap()).unwrap();
        let mut batch = Batch::default();
        batch.call("getpid", libc::SYS_getpid, []);
        assert!(loan.perform(&batch).unwrap()[0].value().unwrap() > 0);
        loan.finish().unwrap();
        tree.thaw().unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    most
}

#[test]
fn a_shell_that_forks_all_the_time() {
    let script = "while :; do /bin/true & /bin/true | /bin/cat; wait; done";
    let (mut child, pid) = start(Command::new("sh").args(["-c", script]));
    assert!(freeze_again_and_again(pid, 300) > 1);
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_thread_that_executes_its_program_again_and_again() {
    let directory = tempfile::tempdir().unwrap();
    let (mut child, pid) = start(&mut Command::new(compiled(directory.path(), "exec.c")));
    freeze_again_and_again(pid, 300);
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_parent_that_waits_for_its_vfork_child_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let (mut child, pid) = start(&mut Command::new(compiled(directory.path(), "vfork.c")));
    match Tree::freeze(&[pid], Duration::from_millis(100)) {
        Err(Error::Refused(obstacles)) => {
            assert_eq!(obstacles[0].cause.code, "busy:freeze-timeout");
            assert!(obstacles[0].object.contains("in state D"), "{}", obstacles[0].object);
        }
        other => panic!("{other:?}"),
    }
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}
