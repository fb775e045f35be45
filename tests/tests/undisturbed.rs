//! The lab itself: each subject passes its own check when nothing happens to it. Without this, a
//! subject that never passes, or a lab that cannot start one, would look like a fault of snapd's.

use tests::{Lab, View, trial};

fn undisturbed(lab: &Lab, file: &str, args: &[&str]) {
    let program = lab.start_subject(file, args);
    let seen = View::steady(program.pid());
    let differences = seen.differences(&View::of(program.pid()));
    assert!(differences.is_empty(), "the view is not steady:\n{}", differences.join("\n"));
    program.check();
}

trial!(every_subject_is_fine_by_itself, 120, |lab| {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("subjects");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.strip_suffix(".c").is_some())
        .collect();
    files.sort();
    files.retain(|file| !["advised.c", "filing.c"].contains(&file.as_str())); // They are never steady.
    assert!(files.len() >= 20, "subjects are missing: {files:?}");
    for file in files {
        let args: &[&str] = match file.as_str() {
            "memory.c" => &["16"],
            "refused.c" => &["signals"],
            "many_processes.c" | "many_threads.c" => &["50"],
            "many_areas.c" | "many_descriptors.c" => &["500"],
            "timeouts.c" => &["0"],
            "database.c" => &["base", "8", "1"],
            _ => &[],
        };
        undisturbed(lab, &file, args);
    }
});

trial!(a_view_sees_what_changes, 30, |lab| {
    let program = lab.start(&["/bin/bash", "-c", "trap 'exec 7<&-; cd /; echo CHANGED' USR1; exec 7</dev/null; echo READY; while :; do sleep 0.05; done"]);
    let before = View::of(program.pid());
    program.signal(nix::sys::signal::Signal::SIGUSR1);
    program.wait_for("CHANGED");
    let differences = before.differences(&View::of(program.pid())).join("\n");
    for fact in [" fd 7: \"/dev/null\" became absent", " cwd: "] {
        assert!(differences.contains(fact), "{fact} is not among:\n{differences}");
    }
    program.kill();
});
