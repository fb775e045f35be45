//! A database of which pages are rewritten all the time: file and memory of a snapshot are of one instant,
//! on whichever file system, and however it writes. The program finds out: told to end, it looks whether its
//! file holds what it remembers.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use tests::{Lab, trial};

/// There has to be room for a second copy of what is written.
const DISK: u64 = 1 << 30;

fn done(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A file system of its own, in a file: its mount ends with the trial.
fn mount(lab: &Lab, kind: &str) {
    let (disk, folder) = (lab.path("disk"), lab.path("mounted"));
    File::create(&disk).unwrap().set_len(DISK).unwrap();
    done(Command::new(format!("mkfs.{kind}")).arg("-q").arg(&disk));
    fs::create_dir(&folder).unwrap();
    done(Command::new("mount").args(["-o", "loop"]).arg(&disk).arg(&folder));
}

/// Whether there was a twin of its file in the pause.
fn comes_back(lab: &Lab, folder: &Path, manner: &[&str]) -> bool {
    let file = folder.join("base");
    let args = [&[file.to_str().unwrap(), "192", "3"], manner].concat();
    let program = lab.start_subject("database.c", &args);
    let pid = program.pid().to_string();
    let dump = ["dump", "--pid", &pid, "--images", "images", "--leave-running"];
    let output = lab.snapd().command(&dump).env("SNAPD_LOG", "engine=trace").output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    // It has written on, so that its file is not what it was.
    program.kill();
    lab.undumped(program, "images").check();
    log.contains("a twin in the pause")
}

trial!(on_xfs, 120, |lab| {
    mount(lab, "xfs");
    assert!(comes_back(lab, &lab.path("mounted"), &[]), "xfs can hold a file still");
});
trial!(mapped_on_xfs, 120, |lab| {
    mount(lab, "xfs");
    assert!(comes_back(lab, &lab.path("mounted"), &["mapped"]), "xfs can hold a file still");
});
trial!(on_btrfs, 120, |lab| {
    mount(lab, "btrfs");
    comes_back(lab, &lab.path("mounted"), &[]);
});
trial!(on_ext4, 120, |lab| {
    mount(lab, "ext4");
    assert!(!comes_back(lab, &lab.path("mounted"), &[]), "ext4 cannot");
});
trial!(mapped_on_ext4, 120, |lab| {
    mount(lab, "ext4");
    assert!(!comes_back(lab, &lab.path("mounted"), &["mapped"]), "ext4 cannot");
});
