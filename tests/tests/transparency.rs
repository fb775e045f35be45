//! A busy program does not notice checkpoints, however many: no call is interrupted, no timeout ends
//! early or late, nothing is left in it, and neither it nor snapd grows.

use std::fs;
use std::time::{Duration, Instant};

use tests::{Lab, View, Workload, count, trial};

/// Whether Go's runtime may have made this difference: it maps and unmaps all the time, and starts threads
/// when others are late, whose own facts were not there before. What a checkpoint would leave adds up.
fn of_its_runtime(difference: &str) -> bool {
    let whose = difference.split(' ').next().unwrap_or_default();
    difference.contains(" area ")
        || difference.contains(" status Threads: ")
        || (whose.contains('/') && difference.contains(": absent became"))
}

/// Takes an image. A subject that looks for a moment at what /proc tells of one of its threads is refused,
/// and unharmed: then it is tried again.
fn dump(lab: &Lab, args: &[&str]) {
    let outcome = lab.snapd().call(args);
    if outcome.stderr.contains("[proc_file:thread]") {
        return dump(lab, args);
    }
    outcome.ok();
}

fn checkpoints(lab: &Lab, file: &str, args: &[&str], times: usize, every: Duration) {
    let program = lab.start_subject(file, args);
    let before = View::steady(program.pid());
    let pid = program.pid().to_string();
    for number in 0..times {
        let start = Instant::now();
        let images = format!("images{}", number % 2);
        let _ = fs::remove_dir_all(lab.path(&images));
        let args =
            ["dump", "--leave-running", "--freeze-timeout", "20s", "--pid", &pid, "--images"];
        dump(lab, &[&args[..], &[&images]].concat());
        std::thread::sleep(every.saturating_sub(start.elapsed()));
        assert!(program.is_alive(), "after checkpoint {number}:\n{}", program.output());
    }
    let mut differences = before.differences_that_stay(program.pid());
    if file == "goroutines.go" {
        let after = View::of(program.pid());
        differences.retain(|difference| !of_its_runtime(difference));
        for kind in [" area ", " status Name"] {
            let [had, has] = [&before, &after].map(|view| view.count(kind));
            assert!(has < had + times, "from {had} to {has} facts of{kind}");
        }
    }
    assert!(differences.is_empty(), "after {times} checkpoints:\n{}", differences.join("\n"));
    program.check();
}

trial!(alone busy_threads, 600, |lab| {
    checkpoints(lab, "threads.c", &[], count(100, 1000), Duration::ZERO);
});

trial!(
    /// A timeout under a checkpoint every 300 ms comes on time. Whoever waits anew after each is late by 300
    /// and more, so half of that is too late for any; whose end is moved by the pause is late each time, so
    /// a tenth of it is too late for most. In between is what a machine does that is busy with other things.
    alone timeouts, 600, |lab| {
    checkpoints(lab, "timeouts.c", &["150"], count(40, 1000), Duration::from_millis(300));
});

trial!(
    /// Too large to be copied in the pause: a twin holds its memory.
    alone large_and_busy, 600, |lab| {
    checkpoints(lab, "ledger.c", &[], count(30, 1000), Duration::ZERO);
});

trial!(alone goroutines, 600, |lab| {
    checkpoints(lab, "goroutines.go", &[], count(30, 300), Duration::ZERO);
});

/// Memory in KiB and the number of descriptors of a process. `SQLite` closes those of a file later while another
/// connection has a lock of it; whoever leaks a connection leaks its log, too.
fn size(pid: i32) -> (u64, usize) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let memory = line.trim().trim_end_matches(" kB").parse().unwrap();
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let links = descriptors.filter_map(|one| fs::read_link(one.path()).ok());
    (memory, links.filter(|link| !link.ends_with("catalog.sqlite")).count())
}

trial!(alone the_keeper_does_not_grow, 600, |lab| {
    let threads = lab.subject("threads.c");
    let mut workload = Workload::run(lab, "busy", &["--keep-last", "3"], &[threads.to_str().unwrap()]);
    workload.wait_for("READY");
    for _ in 0..20 {
        workload.checkpoint();
    }
    let (memory, descriptors) = size(workload.keeper());
    for _ in 0..count(80, 1000) {
        workload.checkpoint();
    }
    // Old snapshots go behind the back of who waits for the newest, and files are open meanwhile.
    let limit = Duration::from_secs(30);
    tests::eventually("three are kept", limit, || workload.snapshots().len() <= 3);
    tests::eventually(&format!("no more than {descriptors} descriptors"), limit, || {
        size(workload.keeper()).1 <= descriptors
    });
    let (memory_after, _) = size(workload.keeper());
    assert!(memory_after < memory + (8 << 10), "from {memory} to {memory_after} KiB");
    workload.check();
});
