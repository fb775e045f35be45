//! Nothing dies with us: what snapd does to a program is killed with SIGKILL at random moments and at every
//! named step, and the program must not notice. Counts are small by default; `SNAPD_FULL=1` asks for those
//! of the acceptance.
//!
//! One thing a program may see when its tracer dies is what signal(7) says of stops: an `epoll_wait(2)` that
//! is interrupted without a handler. From the interruption until the tracer has mended it, some 50 us, nobody
//! else can.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use engine::fault;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::{Lab, Program, Workload, count, eventually, files_below, trial};

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

/// A program that checks itself, and knows that tracers die.
fn checker(lab: &Lab) -> Program {
    lab.start_subject("threads.c", &["stoppable"])
}

/// A dump of `program`; busy machines stop threads late.
fn dump_args<'a>(pid: &'a str, images: &'a str) -> Vec<&'a str> {
    vec!["dump", "--freeze-timeout", "20s", "--pid", pid, "--images", images]
}

/// Calls snapd, which dies at the given passing of a point. Whether it passed there.
fn dies_at(lab: &Lab, args: &[&str], point: &str, passing: u32) -> bool {
    let mut command = lab.snapd().command(args);
    command.env(fault::VARIABLE, format!("{point}:{passing}"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status().unwrap();
    assert!(status.signal() == Some(9) || status.success(), "at {point}:{passing}: {status}");
    !status.success()
}

/// Every file of an image, but what is put aside and locks: a restore only reads.
fn digest(images: &str) -> BTreeMap<PathBuf, u64> {
    let files = files_below(std::path::Path::new(images)).into_iter();
    let kept = files.filter(|path| !path.to_string_lossy().contains("/undone/"));
    kept.map(|path| {
        let mut hasher = DefaultHasher::new();
        fs::read(&path).unwrap().hash(&mut hasher);
        (path, hasher.finish())
    })
    .collect()
}

/// State, parent and system call of a process, for people.
fn what_it_does(pid: i32) -> String {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let (stat, call) = (read("stat"), read("syscall"));
    let stat: Vec<&str> = stat.split(' ').take(6).collect();
    format!("{} in {} ({})", stat.join(" "), call.trim(), read("wchan"))
}

/// Whether all of the tree is there, or nothing; after a restore that died, once whoever waits at the gate in
/// vain has ended by itself: they do so after two seconds.
fn all_or_nothing(lab: &Lab, all: usize, died: bool) -> bool {
    let settled = || {
        let start = std::time::Instant::now();
        loop {
            let left = lab.processes();
            if left.is_empty() || left.len() == all {
                break !left.is_empty();
            }
            let told: Vec<_> = left.iter().map(|pid| what_it_does(*pid)).collect();
            let late = start.elapsed() > Duration::from_secs(20);
            assert!(
                !late,
                "neither all {all} of the tree nor nothing is left:\n{}",
                told.join("\n")
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    for _ in 0..30 {
        if !settled() {
            return false;
        }
        if !died {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    settled()
}

/// How long a whole dump takes here, with room for the slowest.
fn usual(lab: &Lab, program: &Program) -> Duration {
    let pid = program.pid().to_string();
    let images = image(lab);
    let args = [&dump_args(&pid, &images)[..], &["--leave-running"]].concat();
    lab.snapd().call(&args).ok().took.mul_f64(1.2)
}

trial!(alone dump_leaving_it_running, 1200, |lab| {
    let program = checker(lab);
    let pid = program.pid().to_string();
    let longest = usual(lab, &program);
    let mut done = 0;
    let times = count(60, 500);
    for after in moments(times, longest) {
        let images = image(lab);
        let args = [&dump_args(&pid, &images)[..], &["--leave-running"]].concat();
        done += usize::from(cut_short(lab, &args, after));
        assert!(program.is_alive(), "killed with the dump after {after:?}:\n{}", program.output());
        assert!(!program.output().contains("FAIL"), "hurt after {after:?}:\n{}", program.output());
    }
    assert!(done < times, "no dump was cut short: the moments are too late");
    // Whatever was left behind, the next one works, and the program has nothing to complain of.
    let images = image(lab);
    lab.snapd().call(&[&dump_args(&pid, &images)[..], &["--leave-running"]].concat()).ok();
    program.check();
});

trial!(alone dump_at_every_step, 1200, |lab| {
    let program = checker(lab);
    let pid = program.pid().to_string();
    for point in fault::REMOTE {
        for passing in [1, 2, 9].into_iter().take(count(2, 3)) {
            let images = image(lab);
            let args = [&dump_args(&pid, &images)[..], &["--leave-running"]].concat();
            let died = dies_at(lab, &args, point, passing);
            assert!(died || passing > 1, "{point} is never passed");
            std::thread::sleep(Duration::from_millis(20));
            assert!(program.is_alive(), "killed by {point}:{passing}:\n{}", program.output());
            assert!(!program.output().contains("FAIL"), "{point}:{passing}:\n{}", program.output());
        }
    }
    let images = image(lab);
    lab.snapd().call(&[&dump_args(&pid, &images)[..], &["--leave-running"]].concat()).ok();
    program.check();
});

trial!(
    /// Without `--leave-running` the program ends once its image is durable, and not before: killed at
    /// any moment, there is the program, or an image that gives it back.
    alone dump_that_ends_it, 1200, |lab| {
    let mut program = checker(lab);
    let longest = usual(lab, &program);
    for after in moments(count(40, 500), longest) {
        let pid = program.pid().to_string();
        let images = image(lab);
        cut_short(lab, &dump_args(&pid, &images), after);
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
    let before = digest(&images);
    let mut whole = 0;
    let times = count(40, 100);
    for after in moments(times, longest) {
        let done = cut_short(lab, &["undump", "--images", &images, "--detach"], after);
        let all = all_or_nothing(lab, 12, !done);
        assert!(!done || all, "undump said done, and the tree does not run");
        if all {
            whole += 1;
            program.check();
        }
        lab.kill_everything();
        assert_eq!(digest(&images), before, "the image has changed, after {after:?}");
    }
    assert!(whole < times, "no undump was cut short: the moments are too late");
    lab.undump(&program, &images);
    program.check();
});

/// Until the gate opens nothing of the tree is left soon after; from then on all of it runs. Those steps of
/// which the subject has none are `absent`.
fn undump_at_every_step(lab: &Lab, file: &str, absent: &[&str]) {
    let program = lab.start_subject(file, &[]);
    let all = lab.processes().len();
    let images = image(lab);
    lab.dump(&program, &images);
    lab.kill_everything();
    let before = digest(&images);
    let mut not_passed = Vec::new();
    for point in fault::RESTORE {
        for passing in [1, 3].into_iter().take(count(1, 2)) {
            let died = dies_at(lab, &["undump", "--images", &images, "--detach"], point, passing);
            let runs = all_or_nothing(lab, all, died);
            let open = !died
                || ["restore:gate-open", "restore:let-go", "restore:unmapping"].contains(point);
            assert_eq!(runs, open, "{point}:{passing}, which it passed: {died}");
            not_passed.extend((!died && passing == 1).then_some(*point));
            if runs {
                println!("{point}:{passing} ran on");
                program.check();
            }
            lab.kill_everything();
            assert_eq!(digest(&images), before, "the image has changed, at {point}:{passing}");
        }
    }
    assert_eq!(not_passed, absent, "steps that the subject does not have");
    lab.undump(&program, &images);
    program.check();
}

trial!(alone undump_of_a_tree_at_every_step, 1200, |lab| {
    undump_at_every_step(lab, "tree.c", &["restore:bury", "restore:threads"]);
});

trial!(alone undump_of_the_leaderless_at_every_step, 1200, |lab| {
    undump_at_every_step(lab, "leaderless.c", &["restore:continue", "restore:end"]);
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
