//! Nothing dies with us: what snapd does to a program is killed with SIGKILL at random moments, and the
//! program must not notice. Counts are small by default; `SNAPD_FULL=1` asks for those of the acceptance.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::{Lab, Program, Workload, count, eventually, trial};

/// Numbers that spread evenly over a range, the same in each run: the golden ratio's multiples.
fn moments(times: usize, longest: Duration) -> impl Iterator<Item = Duration> {
    (1..=times).map(move |at| {
        let spread = u32::try_from(at).unwrap().wrapping_mul(2_654_435_769);
        longest.mul_f64(f64::from(spread) / f64::from(u32::MAX))
    })
}

/// Calls snapd and kills it after a while. Whether it was done before.
fn cut_short(lab: &Lab, args: &[&str], after: Duration) -> bool {
    let call = lab.snapd().spawn(args);
    std::thread::sleep(after);
    call.kill().code == 0
}

fn image(lab: &Lab) -> String {
    let path = lab.path("images");
    let _ = fs::remove_dir_all(&path);
    path.to_str().unwrap().into()
}

/// How long a whole dump takes here, with room for the slowest.
fn usual(lab: &Lab, program: &Program) -> Duration {
    let pid = program.pid().to_string();
    let images = image(lab);
    let args = ["dump", "--leave-running", "--pid", &pid, "--images", &images];
    lab.snapd().call(&args).ok().took.mul_f64(1.2)
}

trial!(alone dump_leaving_it_running, 1200, |lab| {
    let program = lab.start_subject("threads.c", &[]);
    let pid = program.pid().to_string();
    let longest = usual(lab, &program);
    let mut done = 0;
    let times = count(60, 500);
    for after in moments(times, longest) {
        let images = image(lab);
        done += usize::from(cut_short(lab, &["dump", "--leave-running", "--pid", &pid, "--images", &images], after));
        assert!(program.is_alive(), "killed with the dump after {after:?}:\n{}", program.output());
        assert!(!program.output().contains("FAIL"), "hurt after {after:?}:\n{}", program.output());
    }
    assert!(done < times, "no dump was cut short: the moments are too late");
    // Whatever was left behind, the next one works, and the program has nothing to complain of.
    let images = image(lab);
    lab.snapd().call(&["dump", "--leave-running", "--pid", &pid, "--images", &images]).ok();
    program.check();
});

trial!(
    /// Without `--leave-running` the program ends once its image is durable, and not before: killed at
    /// any moment, there is the program, or an image that gives it back.
    alone dump_that_ends_it, 1200, |lab| {
    let mut program = lab.start_subject("threads.c", &[]);
    let longest = usual(lab, &program);
    for after in moments(count(40, 500), longest) {
        let pid = program.pid().to_string();
        let images = image(lab);
        cut_short(lab, &["dump", "--pid", &pid, "--images", &images], after);
        // A tree that was told to die may take a moment.
        std::thread::sleep(Duration::from_millis(20));
        if program.is_alive() {
            assert!(!program.output().contains("FAIL"), "hurt after {after:?}:\n{}", program.output());
        } else {
            program.ending();
            program = lab.undumped(program, &images);
        }
    }
    program.check();
});

trial!(
    /// A killed undump leaves the whole tree running, or nothing of it; the image stays as it was.
    alone undump, 1200, |lab| {
    let program = lab.start_subject("many_processes.c", &["12"]);
    let images = image(lab);
    lab.dump(&program, &images);
    let longest = lab.undump(&program, &images).took.mul_f64(1.2);
    assert_eq!(lab.processes().len(), 12);
    lab.kill_everything();
    let mut whole = 0;
    let times = count(40, 100);
    for after in moments(times, longest) {
        let done = cut_short(lab, &["undump", "--images", &images, "--detach"], after);
        let mut left = 0;
        eventually("all of the tree or nothing", Duration::from_secs(5), || {
            left = lab.processes().len();
            left == 0 || left == 12
        });
        assert!(!done || left == 12, "undump said done, and {left} processes run");
        if left == 12 {
            whole += 1;
            program.check();
        }
        lab.kill_everything();
    }
    assert!(whole < times, "no undump was cut short: the moments are too late");
    lab.undump(&program, &images);
    program.check();
});

trial!(
    /// The keeper killed while it takes snapshots: the program runs on, the next command brings a new
    /// keeper, and it goes on with snapshots.
    alone keeper, 1800, |lab| {
    let threads = lab.subject("threads.c");
    let options = ["--every", "100ms", "--keep-last", "3"];
    let mut workload = Workload::run(lab, "kept", &options, &[threads.to_str().unwrap()]);
    workload.wait_for("READY");
    let pid = workload.pid().unwrap();
    workload.kill_keeper();
    for after in moments(count(20, 200), Duration::from_millis(400)) {
        assert_eq!(workload.pid(), Some(pid), "the program is another one");
        let mut keepers = Vec::new();
        eventually("a keeper is there", Duration::from_secs(10), || {
            keepers = keepers_of("kept");
            !keepers.is_empty()
        });
        assert_eq!(keepers.len(), 1, "keepers: {keepers:?}");
        std::thread::sleep(after);
        let _ = kill(Pid::from_raw(keepers[0]), Signal::SIGKILL);
        eventually("the keeper is gone", Duration::from_secs(5), || keepers_of("kept").is_empty());
        assert!(fs::metadata(format!("/proc/{pid}")).is_ok(), "the program died with its keeper");
    }
    assert_eq!(workload.restores(), 0);
    workload.checkpoint();
    workload.crash();
    kill(Pid::from_raw(workload.pid().unwrap()), Signal::SIGTERM).unwrap();
    eventually("the end", Duration::from_secs(30), || workload.state().as_deref() == Some("finished"));
    assert_eq!(workload.row().unwrap()["exit_code"], 0);
});

/// Detached keepers, by their command lines.
fn keepers_of(name: &str) -> Vec<i32> {
    let words = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let is_keeper = |pid: &i32| {
        words(pid).contains("__keeper\0") && words(pid).contains(&format!("\0{name}\0"))
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_keeper).collect()
}
