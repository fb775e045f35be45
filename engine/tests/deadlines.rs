//! Relative timeouts come on time, however often the tree is frozen meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use engine::inventory::Pid;
use engine::tracee::Tree;

/// `epoll_wait(1000)`, frozen every 300 ms, used to begin anew each time and never timed out: the kernel
/// answers EINTR, and whoever restarts such a call must know how long the program has waited already.
#[test]
fn timeouts_come_on_time_with_a_freeze_every_300_ms() {
    let directory = tempfile::tempdir().unwrap();
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/checker/timeouts.c");
    let program = directory.path().join("timeouts");
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-pthread", "-w", "-o"]).arg(&program).arg(source);
    assert!(compiler.status().unwrap().success());
    let mut process = Command::new(&program).stdout(Stdio::piped()).spawn().unwrap();
    let pid = Pid(process.id().cast_signed());
    for _ in 0..12 {
        std::thread::sleep(Duration::from_millis(300));
        let mut tree = Tree::freeze(&[pid], Duration::from_secs(30)).unwrap();
        let threads = tree.members().values().flat_map(|member| member.threads.clone());
        for tid in threads.collect::<Vec<_>>() {
            tree.thread(tid).unwrap();
            tree.borrow(tid).unwrap().finish().unwrap();
        }
        tree.thaw().unwrap();
    }
    let mut told = String::new();
    process.stdout.take().unwrap().read_to_string(&mut told).unwrap();
    process.wait().unwrap();
    let mut rounds = BTreeMap::<_, Vec<u32>>::new();
    for line in told.lines() {
        let mut words = line.split(' ');
        let (name, took) = (words.next().unwrap(), words.next().unwrap().parse().unwrap());
        assert_eq!(words.next(), Some("right"), "{told}");
        rounds.entry(name).or_default().push(took);
    }
    assert_eq!(rounds.len(), 12, "{told}");
    for (name, took) in rounds {
        // What sockets limit is counted in steps of the timer wheel.
        let coarse = ["recvfrom", "read", "accept"].contains(&name);
        let right = if coarse { 990..1070 } else { 1000..1020 };
        let all = took.iter().all(|ms| right.contains(ms));
        assert!(took.len() >= 3 && all, "{name} {took:?}");
    }
}
