//! What a crash leads to: the rule of the command line, seen from outside.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::{Lab, Running, eventually, files_below, trial};

const NAME: &str = "job";

fn rows(lab: &Lab) -> Option<Value> {
    let rows = lab.snapd().call(&["ls", "--json"]).ok().json();
    rows.as_array()?.iter().find(|row| row["name"] == NAME).cloned()
}

fn state(lab: &Lab) -> String {
    rows(lab).and_then(|row| Some(row["state"].as_str()?.to_string())).unwrap_or_default()
}

fn pid(lab: &Lab) -> Option<Pid> {
    let row = rows(lab)?;
    let up = row["state"] == "running" || row["state"] == "checkpointing";
    i32::try_from(row["pid"].as_i64()?).ok().filter(|pid| up && *pid > 0).map(Pid::from_raw)
}

/// Kinds and snapshots of the events, but for those of snapshots taken.
fn events(lab: &Lab) -> Vec<(String, Option<u64>)> {
    let lines = lab.snapd().call(&["events", NAME, "--json"]).ok().stdout;
    let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events
        .map(|event| (event["kind"].as_str().unwrap().to_string(), event["seq"].as_u64()))
        .filter(|(kind, _)| !["checkpointed", "note", "backoff"].contains(&kind.as_str()))
        .collect()
}

fn run(lab: &Lab, options: &[&str], script: &str) -> Running {
    let start = ["run", "--name", NAME];
    lab.snapd().spawn(&[&start[..], options, &["--", "bash", "-c", script]].concat())
}

fn checkpoint(lab: &Lab) -> u64 {
    let outcome = lab.snapd().call(&["checkpoint", NAME, "--json"]).ok();
    outcome.json()["seq"].as_u64().unwrap()
}

fn up(lab: &Lab) -> Pid {
    eventually("it runs", Duration::from_secs(60), || pid(lab).is_some());
    pid(lab).unwrap()
}

/// Ends with 3 as long as there is a file that says so.
const CRASHES: &str = "while [ ! -e crash ]; do sleep 0.05; done; exit 3";

trial!(back_three_then_afresh_then_failed, 180, |lab| {
    let job = run(lab, &[], CRASHES);
    up(lab);
    (1..=7).for_each(|seq| assert_eq!(checkpoint(lab), seq));
    fs::write(lab.path("crash"), "").unwrap();
    let outcome = job.wait(Duration::from_secs(120)).exits(3);
    let mut expected = vec![("started".to_string(), None)];
    for (seq, before) in [(7, None), (6, Some(6)), (5, Some(5)), (4, Some(4))] {
        expected.push(("crashed".into(), None));
        expected.extend(before.map(|seq| ("stepped-back".to_string(), Some(seq))));
        expected.push(("restored".into(), Some(seq)));
    }
    for kind in ["crashed", "started-fresh", "started", "crashed", "failed"] {
        expected.push((kind.into(), None));
    }
    assert_eq!(events(lab), expected, "{outcome:?}");
    assert_eq!(state(lab), "failed");
    // Numbers go on, whatever happened.
    fs::remove_file(lab.path("crash")).unwrap();
    let again = run(lab, &["--fresh"], CRASHES);
    up(lab);
    assert_eq!(checkpoint(lab), 8);
    lab.snapd().call(&["stop", NAME]).ok();
    again.wait(Duration::from_secs(20)).exits(143);
});

trial!(a_damaged_snapshot_is_stepped_over, 120, |lab| {
    let script = "i=0; while :; do i=$((i+1)); dd if=/dev/urandom bs=64k count=1 2>/dev/null | md5sum; sleep 0.05; done";
    let job = run(lab, &[], script);
    let first = up(lab);
    checkpoint(lab);
    checkpoint(lab);
    let manifests = files_below(&lab.path("state/manifests"));
    let newest = manifests.iter().find(|path| path.ends_with("2.manifest")).expect("a manifest");
    let mut bytes = fs::read(newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(newest, bytes).unwrap();
    kill(first, Signal::SIGKILL).unwrap();
    eventually("the restore", Duration::from_secs(60), || rows(lab).unwrap()["restores"] == 1);
    let restored = events(lab).into_iter().rfind(|(kind, _)| kind == "restored");
    assert_eq!(restored, Some(("restored".into(), Some(1))));
    lab.snapd().call(&["kill", NAME]).ok();
    job.wait(Duration::from_secs(20)).exits(137);
    lab.snapd().call(&["restore", "job@2"]).exits(4);
});

trial!(a_roll_back_begins_a_new_line, 120, |lab| {
    let script = "exec > out; i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done";
    let job = run(lab, &[], script);
    up(lab);
    // What was written after the snapshot would stand in the way of what is written again.
    let check = || {
        let written = fs::read_to_string(lab.path("out")).unwrap();
        let numbers: Vec<_> = written.lines().map(|line| line.parse().unwrap_or(0)).collect();
        let expected: Vec<usize> = (1..=numbers.len()).collect();
        assert_eq!(numbers, expected, "the file went back with it");
    };
    for _ in 1..=3 {
        std::thread::sleep(Duration::from_millis(300));
        checkpoint(lab);
    }
    std::thread::sleep(Duration::from_secs(1));
    lab.snapd().call(&["rollback", "job@1"]).ok();
    check();
    assert_eq!(checkpoint(lab), 4);
    kill(up(lab), Signal::SIGKILL).unwrap();
    eventually("the restore", Duration::from_secs(60), || rows(lab).unwrap()["restores"] == 2);
    assert_eq!(checkpoint(lab), 5);
    // Within ten seconds of the roll back the one taken since is in doubt, and those that it left
    // behind are on another line.
    assert_eq!(events(lab).pop(), Some(("restored".into(), Some(1))));
    lab.snapd().call(&["rollback", "job@3"]).ok();
    assert!(lab.path("state/undone/job").is_dir());
    lab.snapd().call(&["kill", NAME]).ok();
    check();
    job.wait(Duration::from_secs(20)).exits(137);
});

trial!(which_ends_are_crashes, 120, |lab| {
    run(lab, &["--restart", "no"], "kill -SEGV $$").wait(Duration::from_secs(20)).exits(139);
    assert_eq!(state(lab), "failed");
    assert_eq!(rows(lab).unwrap()["restarts"], 0, "it was not started again");
    run(lab, &["--fresh"], "kill -TERM $$").wait(Duration::from_secs(20)).exits(143);
    assert_eq!(state(lab), "finished");
    let script = "echo run >> runs; [ $(wc -l < runs) -ge 3 ] && exec sleep 1000; exit 0";
    let job = run(lab, &["--fresh", "--restart", "always"], script);
    eventually("three runs", Duration::from_secs(30), || {
        fs::read_to_string(lab.path("runs")).unwrap_or_default().lines().count() == 3
    });
    up(lab);
    assert_eq!(rows(lab).unwrap()["restarts"], 2);
    lab.snapd().call(&["stop", NAME]).ok();
    job.wait(Duration::from_secs(20)).exits(143);
});

trial!(resume_goes_on_where_it_was_saved, 120, |lab| {
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do echo $i >> out; sleep 0.2; done";
    let job = run(lab, &["--resume"], script);
    up(lab);
    std::thread::sleep(Duration::from_secs(1));
    lab.snapd().call(&["checkpoint", NAME, "--stop"]).ok();
    job.wait(Duration::from_secs(20)).exits(137);
    assert_eq!(state(lab), "stopped");
    lab.snapd().call(&["run", "--name", NAME, "--", "true"]).exits(1).says(&["--fresh"]);
    run(lab, &["--resume"], script).wait(Duration::from_secs(30)).exits(0);
    let written = fs::read_to_string(lab.path("out")).unwrap();
    let expected: Vec<_> = (1..=10).map(|number| number.to_string()).collect();
    assert_eq!(written.lines().collect::<Vec<_>>(), expected);
});
