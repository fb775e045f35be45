//! A dump that dies, or runs out of room, at any step of writing its image: there is the program or a
//! complete image, never neither, and never an image that only looks complete.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tests::{Lab, Program, eventually, files_below, trial};

const DAMAGED: i32 = 4;
const FAILED: i32 = 1;
const BUSY: i32 = 5;

/// Dumps with a step at which we kill ourselves; whether that step was reached.
fn dies_at(lab: &Lab, program: &Program, images: &str, step: &str) -> bool {
    let pid = program.pid().to_string();
    let mut command = lab.snapd().command(&["dump", "--pid", &pid, "--images", images]);
    command.env("SNAPD_FAULT", step).stdin(Stdio::null());
    let log = fs::File::create(lab.path("dump.log")).unwrap();
    command.stdout(log.try_clone().unwrap()).stderr(log);
    let status = command.status().unwrap();
    assert!(status.success() || status.code().is_none(), "{step}: {status}");
    !status.success()
}

trial!(
    /// Killed at each step of the store, in turn: once for each time that it is taken.
    a_dump_killed_at_each_step, 600, |lab| {
    let mut program = lab.start_subject("memory.c", &["8"]);
    let mut passed = BTreeMap::new();
    for step in store::STEPS {
        for time in 1.. {
            let images = lab.path(&format!("images-{}-{time}", step.replace(':', "-")));
            let images = images.to_str().unwrap();
            let died = dies_at(lab, &program, images, &format!("{step}:{time}"));
            std::thread::sleep(std::time::Duration::from_millis(20));
            if program.is_alive() {
                assert!(died, "{step}:{time}: done, but the program runs");
                // Complete, too, if we died between the commit and the end of the program.
                let outcome = lab.snapd().call(&["undump", "--images", images, "--detach"]);
                if outcome.code == BUSY {
                    continue;
                }
                outcome.exits(DAMAGED);
                // Nothing is in the way of another try, and what is left over goes.
                let pid = program.pid().to_string();
                let again = ["dump", "--leave-running", "--pid", &pid, "--images", images];
                lab.snapd().call(&again).ok();
                let drafts = |path: &&std::path::PathBuf| path.extension().is_some_and(|end| end == "tmp");
                let files = files_below(Path::new(images));
                assert_eq!(files.iter().find(drafts), None, "{step}:{time}");
            } else {
                program.ending();
                program = lab.undumped(program, images);
            }
            passed.insert(*step, time);
            if !died {
                break;
            }
        }
    }
    program.check();
    // The last time of each is that of a dump which was not killed.
    for step in ["store:create", "store:write", "store:sync", "store:rename", "store:sync-directory"] {
        assert!(passed.get(step).is_some_and(|times| *times >= 3), "{step}: {passed:?}");
    }
});

trial!(
    /// Disks of many sizes, so that each sort of write is once the one that does not fit.
    disks_that_are_too_small, 300, |lab| {
    let mut program = lab.start_subject("memory.c", &["2"]);
    let (mut refused, mut done) = (0, 0);
    for pages in (2..40).chain((40..600).step_by(17)) {
        let disk = lab.path(&format!("disk{pages}"));
        fs::create_dir(&disk).unwrap();
        let size = format!("size={}k,mode=700", pages * 4);
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(&disk).status();
        assert!(mount.unwrap().success());
        let images = disk.join("images");
        let images = images.to_str().unwrap();
        let pid = program.pid().to_string();
        let outcome = lab.snapd().call(&["dump", "--pid", &pid, "--images", images]);
        if outcome.code == 0 {
            program.ending();
            program = lab.undumped(program, images);
            done += 1;
        } else {
            outcome.exits(FAILED).says(&["space"]);
            assert!(program.is_alive(), "{size}: neither program nor image");
            lab.snapd().call(&["undump", "--images", images, "--detach"]).exits(DAMAGED);
            refused += 1;
        }
        assert!(Command::new("umount").arg("-l").arg(&disk).status().unwrap().success());
    }
    assert!(refused > 10 && done > 3, "{refused} refused, {done} done: sizes are off");
    program.check();
});

trial!(
    /// What is damaged is found before a file of the program is put back.
    a_damaged_image_changes_no_file, 60, |lab| {
    let out = lab.path("out");
    let script = "exec 3>>out; echo one >&3; echo READY; while :; do sleep 1; done";
    let program = lab.start(&["sh", "-c", script]);
    lab.dump(&program, "images");
    let limit = std::time::Duration::from_secs(10);
    eventually("the end of its children", limit, || lab.processes().is_empty());
    let packs = files_below(&lab.path("images"));
    let pack = packs.iter().find(|path| path.extension().is_some_and(|end| end == "pack")).unwrap();
    let whole = fs::read(pack).unwrap();
    fs::write(&out, "written later\n").unwrap();
    // Wherever it is damaged.
    for at in (0..whole.len()).step_by(whole.len() / 20) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(pack, damaged).unwrap();
        let outcome = lab.snapd().call(&["undump", "--images", "images", "--detach"]);
        outcome.exits(DAMAGED).says(&[".pack", "damaged at byte", "image@1"]);
        assert!(!program.is_alive());
        assert_eq!(fs::read_to_string(&out).unwrap(), "written later\n", "damage at {at}");
    }
    fs::write(pack, whole).unwrap();
    lab.undump(&program, "images");
    assert_eq!(fs::read_to_string(&out).unwrap(), "one\n");
});
