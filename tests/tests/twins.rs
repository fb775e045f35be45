//! Snapshots whose memory a twin holds while the program runs on: all of it is of one instant, and
//! nothing of the twins is left.

use std::time::Duration;

use tests::{Lab, Workload, count, eventually, trial};

fn newest(workload: &Workload<'_>) -> u64 {
    let seqs = workload.snapshots();
    seqs.iter().filter_map(|snapshot| snapshot["seq"].as_u64()).max().unwrap_or(0)
}

fn run<'a>(lab: &'a Lab, options: &[&str]) -> Workload<'a> {
    let ledger = lab.subject("ledger.c");
    let mut workload = Workload::run(lab, "ledger", options, &[ledger.to_str().unwrap()]);
    workload.wait_for("READY");
    workload
}

trial!(
    /// Were a page or a process of another instant than the rest, a sum would be off for good.
    of_one_instant, 900, |lab| {
    let workload = run(lab, &["--every", "200ms", "--keep-last", "3"]);
    for _ in 0..count(6, 500) {
        let before = newest(&workload);
        eventually("two more snapshots", Duration::from_secs(60), || newest(&workload) > before + 1);
        lab.snapd().call(&["restore", "ledger", "--replace"]).ok();
    }
    workload.check();
});

trial!(
    /// Flags are asked for before the pause, and confirmed by the twin: what changes in between is noticed.
    flags_of_the_instant, 300, |lab| {
    let program = lab.start_subject("advised.c", &[]);
    let pid = program.pid().to_string();
    for round in 0..count(10, 300) {
        let images = format!("images{round}");
        lab.snapd().call(&["dump", "--leave-running", "--pid", &pid, "--images", &images]).ok();
        program.kill();
        lab.undump(&program, &images);
    }
    program.check();
});

trial!(nobody_is_left, 300, |lab| {
    let workload = run(lab, &["--keep-last", "2"]);
    workload.checkpoint();
    let before = lab.processes().len();
    for _ in 0..count(20, 1000) {
        workload.checkpoint();
    }
    eventually("the last twin is gone", Duration::from_secs(10), || {
        lab.processes().len() <= before
    });
    workload.check();
});
