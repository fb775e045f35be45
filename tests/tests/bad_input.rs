//! Bad input: each is refused with a clear sentence and the exit code of the command line's rules, and
//! nothing is lost or started by it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use tests::{Ending, Lab, Program, trial};

/// Done, failed, usage, not there, damaged, busy: the exit codes that users rely on.
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const ABSENT: i32 = 3;
const DAMAGED: i32 = 4;
const BUSY: i32 = 5;

fn sleeper(lab: &Lab) -> Program {
    lab.start_subject("eventfd.c", &[])
}

fn dump(lab: &Lab, pid: &str) -> tests::Outcome {
    lab.snapd().call(&["dump", "--leave-running", "--pid", pid, "--images", "images"])
}

trial!(usage, 30, |lab| {
    let snapd = lab.snapd();
    snapd.call(&["no-such-command"]).exits(USAGE).says(&["no-such-command"]);
    snapd.call(&["dump", "--pid", "x", "--images", "i"]).exits(USAGE).says(&["x"]);
    snapd.call(&["dump"]).exits(USAGE).says(&["--pid"]);
    for every in ["0", "x", "-1s", "5 parsecs"] {
        let run = ["run", "--every", every, "--", "touch", "started"];
        snapd.call(&run).exits(USAGE).says(&[every]);
    }
    snapd
        .call(&["run", "--name", "Not A Name", "--", "touch", "started"])
        .exits(USAGE)
        .says(&["Not A Name"]);
    assert!(!lab.path("started").exists(), "a command was started in spite of its usage");
});

trial!(commands_that_do_not_run, 30, |lab| {
    fs::write(lab.path("no-program"), "text").unwrap();
    let snapd = lab.snapd();
    snapd.call(&["run", "--", "/no/such/program"]).exits(127).says(&["/no/such/program"]);
    snapd.call(&["run", "--", "./no-program"]).exits(126).says(&["no-program"]);
    snapd.call(&["run", "-d", "--", "/no/such/program"]).exits(127).says(&["/no/such/program"]);
    // Of a workload that never was, nothing is left.
    assert_eq!(snapd.call(&["ls", "--json"]).ok().json(), serde_json::json!([]));
    let logs = tests::files_below(&lab.path("state/logs"));
    assert!(logs.is_empty(), "{logs:?}");
    // And of one that was, everything.
    snapd.call(&["run", "-d", "--name", "it", "--", "sleep", "1000"]).ok();
    snapd.call(&["checkpoint", "it", "--stop"]).ok();
    let before = snapd.call(&["ls", "--json"]).ok().json();
    let fresh = ["run", "--name", "it", "--fresh", "--", "/no/such/program"];
    snapd.call(&fresh).exits(127).says(&["/no/such/program"]);
    assert_eq!(snapd.call(&["ls", "--json"]).ok().json(), before);
    snapd.call(&["restore", "-d", "it"]).ok();
});

trial!(absent_things, 30, |lab| {
    let snapd = lab.snapd();
    for call in
        [["checkpoint", "ghost"], ["restore", "ghost"], ["stop", "ghost"], ["logs", "ghost"]]
    {
        snapd.call(&call).exits(ABSENT).says(&["ghost"]);
    }
    let gone = sleeper(lab);
    gone.kill();
    dump(lab, &gone.pid().to_string()).exits(ABSENT).says(&[&gone.pid().to_string()]);
    assert!(!lab.path("images").exists() || fs::read_dir(lab.path("images")).unwrap().count() == 0);
});

trial!(pids_that_are_not_for_us, 30, |lab| {
    // PID 1 is this test: it is also the dump's own ancestor.
    dump(lab, "1").exits(FAILED).says(&["1"]);
    let shell = lab.start_unready(&[
        "sh",
        "-c",
        "\"$0\" dump --leave-running --pid $$ --images own; echo \"exit $?\"",
        tests::binary().to_str().unwrap(),
    ]);
    assert_eq!(shell.ending(), Ending::Status(0));
    assert!(
        shell.output().ends_with("exit 1\n"),
        "a tree that holds the dump itself:\n{}",
        shell.output()
    );
    let others = sleeper(lab);
    let pid = others.pid().to_string();
    lab.snapd()
        .as_user("nobody")
        .call(&["dump", "--leave-running", "--pid", &pid, "--images", "theirs"])
        .exits(FAILED)
        .says(&[&pid]);
    others.check();
});

/// Kernel threads are in the machine's first PID namespace only: this test stays outside the lab.
#[test]
fn a_kernel_thread() {
    let second = fs::read_to_string("/proc/2/comm").unwrap_or_default();
    assert_eq!(second, "kthreadd\n", "this test has to run outside containers");
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    let output = Command::new(tests::binary())
        .args(["dump", "--pid", "2", "--images"])
        .arg(images)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(FAILED), "{said}");
    assert!(said.contains("kernel thread"), "{said}");
}

trial!(a_traced_program_names_its_tracer, 30, |lab| {
    let program = sleeper(lab);
    let tracer = lab.start_unready(&["strace", "-p", &program.pid().to_string()]);
    tests::eventually("strace attaches", std::time::Duration::from_secs(10), || {
        fs::read_to_string(format!("/proc/{}/status", program.pid()))
            .unwrap()
            .contains(&format!("TracerPid:\t{}", tracer.pid()))
    });
    dump(lab, &program.pid().to_string()).exits(BUSY).says(&["traced", &tracer.pid().to_string()]);
    let doctor = lab.snapd().call(&["doctor", &program.pid().to_string(), "--json"]);
    assert_eq!(doctor.exits(FAILED).json()["obstacles"][0]["code"], "busy:traced");
    tracer.kill();
    program.check();
});

trial!(a_taken_pid_names_its_holder, 60, |lab| {
    let program = sleeper(lab);
    let pid = program.pid();
    let images = ["dump", "--leave-running", "--pid", &pid.to_string(), "--images", "images"];
    lab.snapd().call(&images).ok();
    lab.snapd()
        .call(&["undump", "--images", "images", "--detach"])
        .exits(BUSY)
        .says(&[&pid.to_string(), "eventfd"]);
    program.check();
});

trial!(an_unwritable_state_directory, 30, |lab| {
    let out = lab.snapd().call(&["--dir", "/proc/nowhere", "run", "--", "touch", "started"]);
    out.exits(FAILED).says(&["/proc/nowhere"]);
    assert!(!lab.path("started").exists());
});

trial!(a_full_disk, 60, |lab| {
    fs::create_dir(lab.path("small")).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m", "none"])
        .arg(lab.path("small"))
        .status()
        .unwrap();
    assert!(mounted.success());
    let program = lab.start_subject("memory.c", &["64"]);
    let pid = program.pid().to_string();
    let images = lab.path("small/images");
    let images = images.to_str().unwrap();
    // Without --leave-running: a dump that fails must not have killed what it could not save.
    let outcome = lab.snapd().call(&["dump", "--pid", &pid, "--images", images]).exits(FAILED);
    outcome.says(&["space"]);
    lab.snapd().call(&["undump", "--images", images, "--detach"]).exits(DAMAGED);
    // Nor is anything in the way of the next one, elsewhere.
    dump(lab, &pid).ok();
    program.check();
});

trial!(images_that_are_none, 60, |lab| {
    let snapd = lab.snapd();
    snapd.call(&["undump", "--images", "nowhere"]).exits(DAMAGED).says(&["nowhere"]);
    fs::create_dir(lab.path("empty")).unwrap();
    snapd.call(&["undump", "--images", "empty"]).exits(DAMAGED).says(&["empty"]);
    fs::create_dir(lab.path("random")).unwrap();
    for name in ["manifest", "pack", "catalog"] {
        let bytes: Vec<u8> =
            (0..5000_u32).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect();
        fs::write(lab.path("random").join(name), bytes).unwrap();
    }
    snapd.call(&["undump", "--images", "random"]).exits(DAMAGED).says(&["random"]);
});

trial!(
    /// Every file of an image, truncated or with a flipped byte: found, named, nothing started.
    damaged_images, 120, |lab| {
    let program = lab.start_subject("memory.c", &["2"]);
    lab.dump(&program, "images");
    let files = tests::files_below(&lab.path("images"));
    assert!(!files.is_empty());
    let mut found = 0;
    for file in files.iter().filter(|file| fs::metadata(file).unwrap().len() > 0) {
        let whole = fs::read(file).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 0x10;
        for damaged in [&whole[..whole.len() / 2], &flipped] {
            fs::write(file, damaged).unwrap();
            let outcome = lab.snapd().call(&["undump", "--images", "images", "--detach"]);
            // What is an index only may be repaired on the way: then the program is right.
            if outcome.code == 0 {
                program.check();
            } else {
                outcome.exits(DAMAGED);
                assert!(!program.is_alive(), "damaged, yet something runs");
                found += 1;
            }
        }
        fs::write(file, &whole).unwrap();
    }
    assert!(found >= 2, "no damage of {files:?} was found");
    lab.undump(&program, "images");
    program.check();
});

trial!(a_changed_executable, 60, |lab| {
    let path = lab.path("own-copy");
    fs::copy(lab.subject("eventfd.c"), &path).unwrap();
    let program = lab.start(&[path.to_str().unwrap()]);
    lab.dump(&program, "images");
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(b"another version");
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    lab.snapd()
        .call(&["undump", "--images", "images", "--detach"])
        .exits(FAILED)
        .says(&["own-copy", "--accept-changed"]);
    assert!(!program.is_alive());
    // Whoever says so goes on with it: what the program has mapped is the same still.
    lab.snapd().call(&["undump", "--images", "images", "--detach", "--accept-changed"]).ok();
    program.check();
    // It is younger than the program, so the image has it too: gone, it comes back as it was.
    fs::remove_file(&path).unwrap();
    lab.undump(&program, "images");
    assert_eq!(fs::read(&path).unwrap(), fs::read(lab.subject("eventfd.c")).unwrap());
    program.check();
});

trial!(a_changed_library, 60, |lab| {
    let library = lab.path("libown.so");
    let build = |text: &str| {
        fs::write(lab.path("own.c"), text).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-Wl,--build-id", "-o"]).arg(&library).arg(lab.path("own.c"));
        assert!(cc.status().unwrap().success());
    };
    build("int own(void) { return 1; }");
    let preload = format!("LD_PRELOAD={}", library.display());
    let program = lab.start(&["env", &preload, lab.subject("eventfd.c").to_str().unwrap()]);
    lab.dump(&program, "images");
    fs::remove_file(&library).unwrap();
    build("int own(void) { return 2; }");
    lab.snapd()
        .call(&["undump", "--images", "images", "--detach"])
        .exits(FAILED)
        .says(&["libown.so", "--accept-changed"]);
    assert!(!program.is_alive());
    lab.snapd().call(&["undump", "--images", "images", "--detach", "--accept-changed"]).ok();
    program.check();
});

trial!(
    /// A processor of another kind, and one that has more than ours: named, nothing started.
    images_of_other_machines, 60, |lab| {
    let program = sleeper(lab);
    lab.dump(&program, "images");
    tests::altered(&lab.path("images"), &lab.path("other"), |inventory| {
        inventory.machine.architecture = "aarch64".into();
    });
    tests::altered(&lab.path("images"), &lab.path("newer"), |inventory| {
        inventory.machine.flags.push("no_such_flag".into());
    });
    tests::altered(&lab.path("images"), &lab.path("same"), |_| {});
    for (images, word) in [("other", "aarch64"), ("newer", "no_such_flag")] {
        let undump = ["undump", "--images", images, "--detach"];
        lab.snapd().call(&undump).exits(FAILED).says(&[word]);
        assert!(!program.is_alive(), "{images}: started in spite of it");
    }
    lab.undump(&program, "same");
    program.check();
});

trial!(
    /// Every obstacle at once, the same for people, for scripts and for the dump itself; and the
    /// program runs on.
    doctor_names_all_obstacles, 60, |lab| {
    let program = lab.start(&["python3", "-c", OBSTACLES]);
    let pid = program.pid().to_string();
    let snapd = lab.snapd();
    let looked = snapd.call(&["doctor", &pid, "--json"]).exits(FAILED).json();
    let obstacles = looked["obstacles"].as_array().unwrap();
    assert!(obstacles.len() >= 2, "{obstacles:?}");
    for obstacle in obstacles {
        for field in ["code", "object", "reason", "remedy"] {
            assert!(obstacle[field].as_str().is_some_and(|text| !text.is_empty()), "{obstacle}");
        }
        assert_eq!(obstacle["pid"].as_i64(), Some(program.pid().into()), "{obstacle}");
    }
    let told = snapd.call(&["doctor", &pid]).exits(FAILED).stdout;
    let refused = dump(lab, &pid).exits(FAILED);
    for obstacle in obstacles {
        let code = obstacle["code"].as_str().unwrap();
        assert!(told.contains(code), "{code} is not in:\n{told}");
        assert!(refused.stderr.contains(code), "{code} is not in:\n{}", refused.stderr);
    }
    let args = ["dump", "--json", "--leave-running", "--pid", &pid, "--images", "images"];
    let refused = snapd.call(&args).exits(FAILED).json();
    let codes = |all: &serde_json::Value| {
        let codes = all["obstacles"].as_array().unwrap().iter();
        codes.map(|one| one["code"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(codes(&refused), codes(&looked));
    program.check();
});

/// A device that cannot be read, and a mapping of it.
const OBSTACLES: &str = "
import os, signal
log = os.open('/dev/kmsg', os.O_RDONLY)
notify = os.open('/dev/loop-control', os.O_RDWR) if os.path.exists('/dev/loop-control') else None
random = os.open('/dev/rtc0', os.O_RDONLY) if os.path.exists('/dev/rtc0') else None
import ctypes
ctypes.CDLL(None).inotify_init1(0)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print('READY', flush=True)
signal.sigwait([signal.SIGTERM])
print('OK', flush=True)
";
