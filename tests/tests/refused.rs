//! Who is refused a checkpoint runs on, whatever it is; who is refused a restore finds everything as it was: nothing is started, and no file has been put back.

use std::fs;

use tests::{Lab, Program, Workload, trial};

/// Writes lines into `work/log`, and is saved after the first.
fn writer(lab: &Lab) -> Program {
    fs::create_dir(lab.path("work")).unwrap();
    fs::copy("/bin/bash", lab.path("shell")).unwrap();
    let script = "exec 7>work/log; echo first >&7; echo READY; while :; do sleep 0.1; done";
    let shell = lab.path("shell");
    lab.start(&[shell.to_str().unwrap(), "-c", script])
}

fn dump(lab: &Lab, program: &Program) {
    let pid = program.pid().to_string();
    let args = ["dump", "--leave-running", "--freeze-timeout", "20s", "--pid", &pid, "--images"];
    lab.snapd().call(&[&args[..], &["images"]].concat()).ok();
}

/// What came after the snapshot stays, and nothing is put aside.
fn undone_is_nothing(lab: &Lab) {
    assert_eq!(fs::read_to_string(lab.path("work/log")).unwrap(), "first\nlater\n");
    assert!(!lab.path("images/undone").exists(), "files were put back");
}

fn write_on(lab: &Lab) {
    use std::io::Write;
    let mut log = fs::File::options().append(true).open(lab.path("work/log")).unwrap();
    log.write_all(b"later\n").unwrap();
}

trial!(
    /// Files used to be put back before anything was checked, so a mistake cost what had been written.
    a_taken_number_changes_no_file, 120, |lab| {
    let program = writer(lab);
    dump(lab, &program);
    write_on(lab);
    let refused = lab.snapd().call(&["undump", "--images", "images", "--detach"]).exits(5);
    refused.says(&[&program.pid().to_string()]);
    undone_is_nothing(lab);
    assert!(program.is_alive());
    lab.kill_everything();
});

trial!(a_changed_executable_changes_no_file, 120, |lab| {
    let program = writer(lab);
    dump(lab, &program);
    write_on(lab);
    lab.kill_everything();
    fs::remove_file(lab.path("shell")).unwrap();
    fs::copy("/bin/true", lab.path("shell")).unwrap();
    let refused = lab.snapd().call(&["undump", "--images", "images", "--detach"]).exits(1);
    refused.says(&["shell"]);
    undone_is_nothing(lab);
    assert!(lab.processes().is_empty());
});

trial!(
    /// The same calls bring the file back where nothing is in the way.
    otherwise_files_are_put_back, 120, |lab| {
    let program = writer(lab);
    dump(lab, &program);
    write_on(lab);
    lab.kill_everything();
    lab.undump(&program, "images");
    assert_eq!(fs::read_to_string(lab.path("work/log")).unwrap(), "first\n");
    lab.kill_everything();
});

/// The subject of this argument is refused with this code, at once, and knows nothing of it.
fn cannot_be_saved(lab: &Lab, what: &str, code: &str) {
    let program = lab.start_subject("refused.c", &[what]);
    let pid = program.pid().to_string();
    let refused = lab.snapd().call(&["dump", "--pid", &pid, "--images", "images"]).exits(1);
    refused.says(&[code]);
    program.check();
}

trial!(
    /// Only the first thread used to be asked whether it is confined: calls made in another one ended
    /// the program.
    a_confined_thread, 60, |lab| cannot_be_saved(lab, "thread", "seccomp:confined"));
trial!(
    /// A checkpoint used to wait for ever for a number that is another one in there.
    a_pid_namespace_with_a_child, 60, |lab| cannot_be_saved(lab, "namespace", "namespace:other"));
trial!(a_pid_namespace_without_any, 60, |lab| cannot_be_saved(
    lab,
    "empty_namespace",
    "namespace:other"
));
trial!(
    /// Of a process only the first thread's descriptors were saved, and all threads got those.
    a_thread_with_its_own_descriptors, 60, |lab| cannot_be_saved(lab, "apart", "thread:apart"));
trial!(emulated_system_calls, 60, |lab| cannot_be_saved(lab, "dispatch", "remote:dispatched"));
trial!(
    /// They were gone after a restore, and nothing had said so.
    keys_of_its_own, 60, |lab| cannot_be_saved(lab, "keys", "keyrings:own"));
trial!(segments, 60, |lab| cannot_be_saved(lab, "segments", "segments:in-use"));
trial!(a_watched_directory, 60, |lab| cannot_be_saved(lab, "watch", "open_file:watched"));
trial!(
    /// Reading the file ahead broke the lease, and waited for its holder to give it up.
    a_lease, 60, |lab| cannot_be_saved(lab, "lease", "open_file:locked"));
trial!(
    /// The dump ended the program, and no restore could queue its signals again.
    signals_beyond_the_limit, 60, |lab| cannot_be_saved(lab, "signals", "pending_signals:over-limit"));
trial!(semaphores_to_be_undone, 60, |lab| cannot_be_saved(lab, "semaphores", "system_v:used"));

trial!(
    /// In the workload's own IPC namespace it would have been gone after a restore.
    system_v_of_a_workload, 60, |lab| {
    let queue = lab.subject("refused.c").to_str().unwrap().to_owned();
    let mut workload = Workload::run(lab, "program", &[], &[&queue, "messages"]);
    workload.wait_for("READY");
    lab.snapd().call(&["checkpoint", "program"]).exits(1).says(&["system_v:own"]);
    workload.check();
});
