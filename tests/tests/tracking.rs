//! Snapshots that take from the one before what has not changed since: they cost what has changed, and
//! come back whole.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::{Lab, Workload, count, eventually, trial};

fn run<'a>(lab: &'a Lab, options: &[&str], file: &str, args: &[&str]) -> Workload<'a> {
    let subject = lab.subject(file);
    let command = [&[subject.to_str().unwrap()], args].concat();
    let mut workload = Workload::run(lab, "watched", options, &command);
    workload.wait_for("READY");
    workload
}

fn newest(workload: &Workload<'_>) -> Value {
    let seq = |snapshot: &Value| snapshot["seq"].as_u64();
    workload.snapshots().into_iter().max_by_key(seq).expect("there is one")
}

fn bytes(snapshot: &Value, name: &str) -> u64 {
    snapshot[name].as_u64().expect("a number")
}

/// A worker that is at work.
fn worker() -> Option<i32> {
    std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let command = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let pid = entry.file_name().to_str()?.parse().ok()?;
        command.contains("__worker").then_some(pid)
    })
}

fn come_back(lab: &Lab) {
    lab.snapd().call(&["restore", "watched", "--replace"]).ok();
}

trial!(
    /// Most of the second comes from the first, and of a restored one nobody knows anything: the third is whole.
    a_snapshot_costs_what_changed, 120, |lab| {
    let workload = run(lab, &[], "memory.c", &["64"]);
    workload.checkpoint();
    let first = newest(&workload);
    assert_eq!(first["tracker"], lab.tracker());
    assert_eq!(bytes(&first, "changed_bytes"), bytes(&first, "memory_bytes"));
    workload.checkpoint();
    let second = newest(&workload);
    assert!(bytes(&second, "memory_bytes") >= 64 << 20, "{second}");
    assert!(bytes(&second, "changed_bytes") < 4 << 20, "{second}");
    come_back(lab);
    workload.checkpoint();
    let third = newest(&workload);
    assert_eq!(bytes(&third, "changed_bytes"), bytes(&third, "memory_bytes"));
    workload.checkpoint();
    assert!(bytes(&newest(&workload), "changed_bytes") < 4 << 20);
    come_back(lab);
    workload.check();
});

trial!(
    /// What was moved has not been written, but is another's now.
    what_moves_comes_along, 120, |lab| {
    let workload = run(lab, &[], "moved.c", &[]);
    for moves in 1..4 {
        workload.checkpoint();
        kill(Pid::from_raw(workload.pid().unwrap()), Signal::SIGUSR1).unwrap();
        let moved = || workload.output().matches("MOVED").count() == moves;
        eventually("the move", Duration::from_secs(20), moved);
        workload.checkpoint();
        come_back(lab);
    }
    workload.check();
});

trial!(
    /// A new program has none of the old one's memory, though it has its number.
    another_program_is_taken_whole, 120, |lab| {
    let mut workload = run(lab, &[], "exec_again.c", &[]);
    for generation in 1..4 {
        workload.checkpoint();
        kill(Pid::from_raw(workload.pid().unwrap()), Signal::SIGUSR1).unwrap();
        workload.wait_for(&format!("generation {generation}"));
        workload.checkpoint();
        come_back(lab);
    }
    workload.check();
});

trial!(
    /// Its areas come, go and change their flags between any two steps of a snapshot.
    areas_that_change_all_the_time, 600, |lab| {
    let workload = run(lab, &["--every", "100ms", "--keep-last", "3"], "advised.c", &[]);
    for _ in 0..count(6, 200) {
        let newest = || {
            workload.snapshots().iter().filter_map(|one| one["seq"].as_u64()).max().unwrap_or(0)
        };
        let before = newest();
        let more = || newest() > before + 2;
        eventually("three more snapshots", Duration::from_secs(60), more);
        come_back(lab);
    }
    workload.check();
});

trial!(
    /// A worker that dies takes with it what it knew: the next one knows that it knows nothing.
    workers_that_die, 300, |lab| {
    let workload = run(lab, &["--keep-last", "3"], "ledger.c", &[]);
    workload.checkpoint();
    for round in 0..count(10, 200) {
        std::thread::scope(|scope| {
            let taking = scope.spawn(|| lab.snapd().call(&["checkpoint", "watched"]));
            let mut found = None;
            while found.is_none() && !taking.is_finished() {
                found = worker();
            }
            std::thread::sleep(Duration::from_millis(round as u64 * 7 % 60));
            found.map(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL));
        });
        workload.checkpoint();
        if round % 3 == 0 {
            come_back(lab);
        }
    }
    come_back(lab);
    workload.check();
});
