//! Snapshots whose memory a twin holds while the program runs on: flags of areas are of the same instant, and
//! nothing of the twins is left. That all of it is of one instant is the matter of `consistency`.

use std::time::Duration;

use tests::{Lab, Workload, count, eventually, trial};

fn run<'a>(lab: &'a Lab, options: &[&str]) -> Workload<'a> {
    let ledger = lab.subject("ledger.c");
    let mut workload = Workload::run(lab, "ledger", options, &[ledger.to_str().unwrap()]);
    workload.wait_for("READY");
    workload
}

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
