//! A program that writes survives five SIGKILLs, and its files end up the very same as those of a run
//! that nobody disturbed: for five manners of writing. The kills come so fast that recovery is driven
//! all the way back, through older and older snapshots, to a start from nothing.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tests::{Lab, Workload, eventually, trial};

/// Lines, and milliseconds between them: some fifteen seconds, longer than the kills take.
const COUNT: &str = "3000";
const PAUSE: &str = "5";

/// The script of the writers; python is Debian's own, whatever stands first on PATH.
fn command(lab: &Lab, manner: &str, count: &str, pause: &str) -> Vec<String> {
    let script = lab.subject("writer.py").to_str().unwrap().to_string();
    ["/usr/bin/python3", &script, manner, count, pause].map(String::from).to_vec()
}

/// What an undisturbed run leaves behind.
fn undisturbed(lab: &Lab, manner: &str, file: &str) -> Vec<u8> {
    let folder = lab.path("undisturbed");
    fs::create_dir(&folder).unwrap();
    let command = command(lab, manner, COUNT, "0");
    let status =
        Command::new(&command[0]).args(&command[1..]).current_dir(&folder).status().unwrap();
    assert!(status.success());
    fs::read(folder.join(file)).unwrap()
}

fn survives(lab: &Lab, manner: &str, file: &str, options: &[&str]) {
    let expected = undisturbed(lab, manner, file);
    let command = command(lab, manner, COUNT, PAUSE);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let options = [&["--every", "500ms"], options].concat();
    let mut workload = Workload::run(lab, manner, &options, &command);
    // Five crashes in a row are what recovery survives: it goes back to four snapshots, one after the
    // other, and then starts from nothing. So there have to be four.
    eventually("four snapshots", Duration::from_secs(30), || workload.snapshots().len() >= 4);
    for kill in 1..=5_u64 {
        std::thread::sleep(Duration::from_millis(600 + 377 * kill % 900));
        workload.crash();
    }
    workload.wait(Duration::from_secs(90)).ok();
    let written = fs::read(lab.path(file)).unwrap();
    if let Some(at) = first_difference(&written, &expected) {
        panic!("{file} differs from byte {at} on; {} bytes, not {}", written.len(), expected.len());
    }
}

fn first_difference(left: &[u8], right: &[u8]) -> Option<usize> {
    let unequal = left.iter().zip(right).position(|(left, right)| left != right);
    unequal.or((left.len() != right.len()).then_some(left.len().min(right.len())))
}

trial!(truncate_and_write, 180, |lab| survives(lab, "truncate", "out", &[]));
trial!(append, 180, |lab| survives(lab, "append", "out", &[]));
trial!(reopen_for_each_line, 180, |lab| {
    fs::create_dir(lab.path("tracked")).unwrap();
    survives(lab, "reopen", "tracked/out", &["--track", "tracked"]);
});
trial!(write_new_and_rename, 180, |lab| {
    fs::create_dir(lab.path("tracked")).unwrap();
    survives(lab, "rename", "tracked/out", &["--track", "tracked"]);
    assert!(!lab.path("tracked/new").exists());
});
trial!(sqlite_in_wal_mode, 180, |lab| {
    fs::create_dir(lab.path("tracked")).unwrap();
    survives(lab, "sqlite", "tracked/out", &["--track", "tracked"]);
    assert_eq!(sqlite(&lab.path("tracked/base.sqlite"), "pragma integrity_check"), "ok");
    assert_eq!(sqlite(&lab.path("tracked/base.sqlite"), "select count(*) from lines"), COUNT);
});

// Of many files those are not asked in the pause that have not changed: whatever becomes of one between a look and
// the pause must be seen.
trial!(many_files, 240, |lab| {
    let subject = lab.subject("filing.c");
    let office = Workload::run(lab, "office", &["--every", "100ms"], &[subject.to_str().unwrap()]);
    for _ in 0..12 {
        let before = office.snapshots().len();
        eventually("two snapshots", Duration::from_secs(30), || {
            office.snapshots().len() > before + 1
        });
        lab.snapd().call(&["rollback", "office"]).ok();
    }
    std::thread::sleep(Duration::from_secs(1));
    office.check();
});

fn sqlite(base: &Path, question: &str) -> String {
    let output = Command::new("sqlite3").arg(base).arg(question).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().into()
}
