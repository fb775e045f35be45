//! The keeper is killed again and again, at random moments, also in the middle of a snapshot: the
//! workload runs on unharmed, whoever asks gets it a new keeper, and no request is lost.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Pid;
use serde_json::Value;
use tests::{Lab, count, eventually, trial};

const NAME: &str = "victim";

/// Moments that are at random, and the same each time.
struct Moments(u64);

impl Moments {
    fn pause(&mut self, most_ms: u64) {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis((self.0 >> 33) % most_ms));
    }
}

/// Kills whoever listens on the control socket.
fn kill_keeper(lab: &Lab) -> bool {
    let run = fs::File::open(lab.path("state/run")).unwrap();
    let path = format!("/proc/self/fd/{}/{NAME}.control", run.as_raw_fd());
    let Ok(socket) = UnixStream::connect(path) else { return false };
    let keeper = getsockopt(&socket, PeerCredentials).unwrap().pid();
    kill(Pid::from_raw(keeper), Signal::SIGKILL).is_ok()
}

fn row(lab: &Lab) -> Value {
    let rows = lab.snapd().call(&["ls", "--json"]).ok().json();
    rows.as_array().unwrap().iter().find(|row| row["name"] == NAME).cloned().unwrap()
}

fn is_up(row: &Value) -> bool {
    row["state"] == "running" || row["state"] == "checkpointing"
}

/// What the writer leaves behind, as far as it has come.
#[track_caller]
fn check_lines(path: &Path) -> usize {
    let written = fs::read_to_string(path).unwrap();
    let lines = written.split_inclusive('\n');
    for (number, line) in lines.clone().enumerate() {
        let expected = format!("{number} {} {}\n", number * number, "x".repeat(number % 50));
        let whole = line == expected || (!line.ends_with('\n') && expected.starts_with(line));
        assert!(whole, "line {number} is {line:?}");
    }
    lines.count()
}

fn start(lab: &Lab) -> i64 {
    let script = lab.subject("writer.py").to_str().unwrap().to_string();
    let command = ["/usr/bin/python3", &script, "append", "1000000", "5"];
    let options = ["run", "-d", "--name", NAME, "--every", "300ms", "--"];
    lab.snapd().call(&[&options[..], &command].concat()).ok();
    row(lab)["pid"].as_i64().unwrap()
}

trial!(killed_at_random_moments, 900, |lab| {
    let pid = start(lab);
    let mut moments = Moments(42);
    let (kills, mut asked) = (count(15, 200), 0);
    for number in 0..kills {
        moments.pause(400);
        if number % 3 == 0 {
            // In the middle of a snapshot that somebody waits for.
            let asking = lab.snapd().spawn(&["checkpoint", NAME]);
            moments.pause(80);
            kill_keeper(lab);
            let outcome = asking.wait(Duration::from_secs(60)).ok();
            assert!(outcome.stdout.starts_with("victim@"), "{outcome:?}");
            asked += 1;
        } else {
            kill_keeper(lab);
        }
        let row = row(lab);
        assert!(is_up(&row) && row["pid"] == pid, "kill {number}: {row}");
    }
    assert_eq!((row(lab)["restores"].as_u64(), row(lab)["restarts"].as_u64()), (Some(0), Some(0)));
    assert!(check_lines(&lab.path("out")) > 100);

    let snapshots = lab.snapd().call(&["snapshots", NAME, "--json"]).ok().json();
    let snapshots = snapshots.as_array().unwrap();
    assert!(snapshots.iter().all(|one| one["state"] == "complete"), "{snapshots:?}");
    assert!(snapshots.last().unwrap()["seq"].as_u64().unwrap() >= asked);

    // The line is whole: a crash goes back to its newest, and the file with it.
    kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
    eventually("the restore", Duration::from_secs(60), || {
        let row = row(lab);
        is_up(&row) && row["restores"] == 1
    });
    let events = lab.snapd().call(&["events", NAME, "--json"]).ok().stdout;
    let events: Vec<Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| events.iter().rfind(|event| event["kind"] == kind).cloned();
    let before = events.iter().take_while(|event| event["kind"] != "crashed");
    let newest = before.filter_map(|event| event["seq"].as_u64()).max();
    assert_eq!(of("restored").unwrap()["seq"].as_u64(), newest);
    let lines = check_lines(&lab.path("out"));
    eventually("it goes on", Duration::from_secs(20), || {
        check_lines(&lab.path("out")) > lines + 50
    });
    lab.snapd().call(&["stop", NAME]).ok();
    check_lines(&lab.path("out"));
});

trial!(killed_while_it_restores, 300, |lab| {
    start(lab);
    let mut moments = Moments(7);
    eventually("a snapshot", Duration::from_secs(30), || row(lab)["last_snapshot"].is_u64());
    for number in 0..count(4, 40) {
        let pid = row(lab)["pid"].as_i64().filter(|pid| *pid > 0);
        if let Some(pid) = pid {
            let _ = kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL);
        }
        moments.pause(300);
        kill_keeper(lab);
        let ask = || {
            let row = row(lab);
            assert!(row["state"] != "failed", "crash {number}: {row}");
            is_up(&row) && row["pid"].as_i64() != pid
        };
        eventually("it runs again", Duration::from_secs(60), ask);
        // Long enough for the next crash to be a new one.
        std::thread::sleep(Duration::from_millis(10_500));
        check_lines(&lab.path("out"));
    }
    lab.snapd().call(&["stop", NAME]).ok();
    check_lines(&lab.path("out"));
});

trial!(an_end_asked_for_stays_asked_for, 120, |lab| {
    start(lab);
    eventually("a snapshot", Duration::from_secs(30), || row(lab)["last_snapshot"].is_u64());
    let stopping = lab.snapd().spawn(&["stop", NAME, "--signal", "KILL"]);
    std::thread::sleep(Duration::from_millis(5));
    kill_keeper(lab);
    stopping.wait(Duration::from_secs(30)).ok();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(row(lab)["state"], "stopped");
    assert_eq!(row(lab)["restores"], 0);
});
