//! Bad input to workloads: names that are taken, absent or malformed, snapshots that are not there, users
//! who may not, readers who go away, `^C`: each with its sentence and its exit code, nothing lost or
//! started by it.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::{Lab, binary, eventually, trial};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const ABSENT: i32 = 3;
const DAMAGED: i32 = 4;
const BUSY: i32 = 5;
const INTERRUPTED: i32 = 130;

fn detached(lab: &Lab, name: &str) {
    let outcome = lab.snapd().call(&["run", "-d", "--name", name, "--", "sleep", "1000"]).ok();
    assert_eq!(outcome.stdout, format!("{name}\n"));
}

fn row(lab: &Lab, name: &str) -> serde_json::Value {
    let rows = lab.snapd().call(&["ls", "--json"]).ok().json();
    rows.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone()
}

trial!(names_that_are_taken, 60, |lab| {
    let snapd = lab.snapd();
    detached(lab, "it");
    let run = ["run", "--name", "it", "--", "touch", "started"];
    snapd.call(&run).exits(BUSY).says(&["it", "runs"]);
    // Without a snapshot there is nothing to restore; with one, it is in the way that it runs.
    snapd.call(&["restore", "it"]).exits(ABSENT).says(&["snapshot", "it"]);
    snapd.call(&["checkpoint", "it"]).ok();
    snapd.call(&["restore", "it"]).exits(BUSY).says(&["it", "--replace"]);
    let pid = row(lab, "it")["pid"].clone();
    assert_eq!(row(lab, "it")["state"], "running");
    snapd.call(&["stop", "it"]).ok();
    snapd.call(&run).exits(FAILED).says(&["it", "restore", "--fresh"]);
    assert!(!lab.path("started").exists(), "a command was started in spite of it");
    assert_eq!(row(lab, "it")["state"], "stopped");
    snapd.call(&["restore", "-d", "it"]).ok();
    assert_ne!(row(lab, "it")["pid"], pid);
    snapd.call(&["kill", "it"]).ok();
    snapd.call(&["run", "--name", "it", "--fresh", "--", "touch", "started"]).ok();
    assert!(lab.path("started").exists());
});

trial!(names_that_are_absent, 60, |lab| {
    let snapd = lab.snapd();
    for call in ["checkpoint", "restore", "stop", "kill", "logs", "events", "show", "snapshots"] {
        snapd.call(&[call, "ghost"]).exits(ABSENT).says(&["ghost"]);
    }
    snapd.call(&["rollback", "ghost@1"]).exits(ABSENT).says(&["ghost"]);
    snapd.call(&["doctor", "ghost"]).exits(ABSENT).says(&["ghost"]);
    snapd.call(&["doctor", "2147483647"]).exits(ABSENT).says(&["2147483647"]);
    assert_eq!(snapd.call(&["ls", "--json"]).ok().json(), serde_json::json!([]));
});

trial!(snapshots_that_are_absent, 60, |lab| {
    let snapd = lab.snapd();
    detached(lab, "it");
    snapd.call(&["show", "it"]).exits(ABSENT).says(&["it"]);
    assert_eq!(snapd.call(&["snapshots", "it", "--json"]).ok().json(), serde_json::json!([]));
    for seq in 1..=2 {
        let taken = snapd.call(&["checkpoint", "it"]).ok();
        assert_eq!(taken.stdout, format!("it@{seq}\n"));
    }
    assert_eq!(snapd.call(&["show", "--json", "it@-1"]).ok().json()["seq"], 1);
    assert_eq!(snapd.call(&["show", "--json", "it"]).ok().json()["seq"], 2);
    for call in ["show", "rollback", "restore"] {
        snapd.call(&[call, "it@99"]).exits(ABSENT).says(&["it@99"]);
        snapd.call(&[call, "it@-2"]).exits(ABSENT).says(&["it@-2"]);
        for malformed in ["it@", "it@x", "it@0", "It@1", "it@1@2"] {
            snapd.call(&[call, malformed]).exits(USAGE).says(&[malformed]);
        }
    }
    assert_eq!(row(lab, "it")["state"], "running");
});

trial!(values_that_mean_nothing, 60, |lab| {
    let snapd = lab.snapd();
    for (option, value) in [
        ("--every", "10"),
        ("--freeze-timeout", "0s"),
        ("--keep-last", "0"),
        ("--keep-last", "x"),
        ("--restart", "sometimes"),
        ("--restart-limit", "10"),
        ("--files", "some"),
        ("--tcp", "maybe"),
        ("--pidns", "mine"),
        ("--tty", "perhaps"),
        ("--env", "NOVALUE"),
    ] {
        let run = ["run", option, value, "--", "touch", "started"];
        snapd.call(&run).exits(USAGE).says(&[option, value]);
    }
    for user in ["no-such-user", "root:no-such-group"] {
        let refused = snapd.call(&["run", "--user", user, "--", "touch", "started"]);
        assert!([FAILED, USAGE].contains(&refused.code), "{refused:?}");
        refused.says(&["no-such"]);
    }
    // What is not there yet is refused, not left out.
    for unsupported in [["--cron", "* * * * *"], ["--on", "SIGUSR1"], ["--boot", "restore"]] {
        let run = [&["run"], &unsupported[..], &["--", "touch", "started"]].concat();
        snapd.call(&run).exits(USAGE).says(&[unsupported[0]]);
    }
    snapd.call(&["run", "--tcp", "keep", "--", "touch", "started"]).exits(FAILED).says(&["tcp"]);
    snapd.call(&["run", "--no-such", "--", "touch", "started"]).exits(USAGE).says(&["--no-such"]);
    snapd.call(&["run"]).exits(USAGE).says(&["COMMAND"]);
    assert!(!lab.path("started").exists(), "a command was started in spite of its options");
    // Options of the command are its own, with `--` before it or without.
    for command in [&["--", "env", "--null", "A=1", "true"][..], &["env", "--null", "A=1", "true"]]
    {
        let run = ["run", "--restart", "no"];
        snapd.call(&[&run[..], command].concat()).exits(125);
    }
});

trial!(an_ordinary_user_is_told_what_is_missing, 30, |lab| {
    fs::set_permissions(lab.folder(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let snapd = lab.snapd().as_user("nobody");
    let run = snapd.call(&["run", "--", "touch", "started"]).exits(FAILED);
    run.says(&["root", "CAP_SYS_ADMIN"]);
    assert!(!lab.path("started").exists());
    let looked = snapd.call(&["doctor", "--json"]).exits(FAILED).json();
    let features = looked["features"].as_array().unwrap();
    let lacking = features.iter().find(|one| one["name"] == "cap-sys-admin").unwrap();
    assert_eq!(lacking["available"], false);
    assert!(lacking["remedy"].as_str().unwrap().contains("root"));
    let own = ["--reuid=nobody", "--regid=nogroup", "--clear-groups", "sleep", "1000"];
    let mut own = Command::new("setpriv").args(own).spawn().unwrap();
    let pid = own.id().to_string();
    let refused = snapd.call(&["dump", "--images", "images", "--pid", &pid]).exits(FAILED);
    refused.says(&["CAP_CHECKPOINT_RESTORE", "account:map-files", "root"]);
    let looked = snapd.call(&["doctor", &pid]).exits(FAILED).stdout;
    assert!(looked.contains("account:map-files"), "{looked}");
    assert!(own.try_wait().unwrap().is_none(), "it was no worse for it");
    own.kill().unwrap();
    own.wait().unwrap();
});

trial!(readers_that_go_away, 30, |lab| {
    for command in ["ls", "completions bash", "--help", "doctor --json"] {
        let line = format!("set -o pipefail; {} {command} | head -c 0", binary().display());
        let mut bash = Command::new("bash");
        bash.args(["-c", &line]).env("SNAPD_DIR", lab.path("state")).stdin(Stdio::null());
        let ended = bash.output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.success() && said.is_empty(), "{command}: {:?}\n{said}", ended.status);
    }
    // A disk that is full is another matter.
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut ls = lab.snapd().command(&["ls"]);
    let ended = ls.stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(ended.status.code(), Some(FAILED));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("standard output"));
});

trial!(
    /// `^C` while an image is being written: the exit code for it, and the program unharmed.
    interrupted_dump, 120, |lab| {
    let program = lab.start_subject("memory.c", &["96"]);
    let pid = program.pid().to_string();
    let running = lab.snapd().spawn(&["dump", "--pid", &pid, "--images", "images"]);
    eventually("something is written", Duration::from_secs(30), || {
        lab.path("images").exists()
            && tests::files_below(&lab.path("images"))
                .iter()
                .any(|file| file.extension().is_some_and(|end| end == "tmp"))
    });
    kill(Pid::from_raw(running.pid()), Signal::SIGINT).unwrap();
    running.wait(Duration::from_secs(30)).exits(INTERRUPTED).says(&["interrupted"]);
    assert!(program.is_alive());
    lab.snapd().call(&["undump", "--images", "images", "--detach"]).exits(4);
    // The same directory takes the next one.
    lab.dump(&program, "images");
    lab.undump(&program, "images");
    program.check();
});

trial!(
    /// `^C` at whoever asked for a snapshot: the workload runs on, the snapshot is whole or none.
    interrupted_checkpoint, 120, |lab| {
    let memory = lab.subject("memory.c");
    let run = ["run", "-d", "--name", "it", "--", memory.to_str().unwrap(), "256"];
    lab.snapd().call(&run).ok();
    let running = lab.snapd().spawn(&["checkpoint", "it"]);
    eventually("it is being saved", Duration::from_secs(30), || {
        row(lab, "it")["state"] == "checkpointing"
    });
    kill(Pid::from_raw(running.pid()), Signal::SIGINT).unwrap();
    running.wait(Duration::from_secs(30)).exits(INTERRUPTED);
    eventually("it runs on", Duration::from_secs(60), || row(lab, "it")["state"] == "running");
    lab.snapd().call(&["checkpoint", "it"]).ok();
    let snapshots = lab.snapd().call(&["snapshots", "it", "--json"]).ok().json();
    for one in snapshots.as_array().unwrap() {
        assert_eq!(one["state"], "complete");
    }
    lab.snapd().call(&["kill", "it"]).ok();
    lab.snapd().call(&["restore", "-d", "--verify", "it@1"]).ok();
    assert_eq!(row(lab, "it")["state"], "running");
});

trial!(
    /// Whoever saves or restores is killed, as the kernel does for want of memory: said in so many
    /// words, and nothing has changed.
    a_worker_that_is_killed, 120, |lab| {
    let memory = lab.subject("memory.c");
    let run = ["run", "-d", "--name", "it", "--", memory.to_str().unwrap(), "512"];
    lab.snapd().call(&run).ok();
    let kill_worker = || {
        let worker = |pid: &i32| {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            comm == "snapd-worker\n"
        };
        eventually("a worker", Duration::from_secs(30), || {
            let found = lab.processes().into_iter().find(worker);
            found.is_some_and(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok())
        });
    };
    let saving = lab.snapd().spawn(&["checkpoint", "it"]);
    kill_worker();
    saving.wait(Duration::from_secs(30)).exits(FAILED).says(&["worker", "signal 9"]);
    assert_eq!(row(lab, "it")["state"], "running");
    lab.snapd().call(&["checkpoint", "it", "--stop"]).ok();
    let restoring = lab.snapd().spawn(&["restore", "-d", "it"]);
    kill_worker();
    restoring.wait(Duration::from_secs(30)).exits(FAILED).says(&["worker", "signal 9"]);
    assert_eq!(row(lab, "it")["state"], "stopped");
    lab.snapd().call(&["restore", "-d", "it"]).ok();
});

trial!(
    /// The catalog is an index: snapshots are found without it, and one that does not read is named.
    a_catalog_that_is_lost, 60, |lab| {
    let snapd = lab.snapd();
    detached(lab, "it");
    snapd.call(&["checkpoint", "it", "--stop"]).ok();
    let catalog = lab.path("state/catalog.sqlite");
    let remove = || {
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{suffix}", catalog.display()));
        }
    };
    remove();
    let found = row(lab, "it");
    assert_eq!((&found["state"], &found["snapshots"]), (&"stopped".into(), &1.into()));
    remove();
    fs::write(&catalog, "this was a catalog once".repeat(500)).unwrap();
    for call in [&["ls"][..], &["restore", "-d", "it"]] {
        snapd.call(call).exits(DAMAGED).says(&["catalog.sqlite", "made anew"]);
    }
    remove();
    snapd.call(&["restore", "-d", "it"]).ok();
    assert_eq!(row(lab, "it")["state"], "running");
});

trial!(
    /// The disk of the state directory is full: the snapshot fails, what there is stays, and the
    /// workload runs on.
    a_full_state_directory, 120, |lab| {
    fs::create_dir(lab.path("small")).unwrap();
    let mount = ["-t", "tmpfs", "-o", "size=8m", "none"];
    let mounted = Command::new("mount").args(mount).arg(lab.path("small")).status().unwrap();
    assert!(mounted.success());
    let dir = lab.path("small/state");
    let snapd = |args: &[&str]| {
        let args = [&["--dir", dir.to_str().unwrap()], args].concat();
        lab.snapd().call(&args)
    };
    let memory = lab.subject("memory.c");
    snapd(&["run", "-d", "--name", "it", "--", memory.to_str().unwrap(), "64"]).ok();
    let listed = || snapd(&["ls", "--json"]).ok().json();
    eventually("it has its memory", Duration::from_secs(30), || {
        let status = format!("/proc/{}/statm", listed()[0]["pid"]);
        let pages = fs::read_to_string(status).unwrap_or_default();
        pages.split(' ').nth(1).and_then(|pages| pages.parse().ok()).is_some_and(|n: u64| n > 16_000)
    });
    snapd(&["checkpoint", "it"]).exits(FAILED).says(&["small"]);
    let packs = tests::files_below(&dir.join("packs"));
    assert!(packs.is_empty(), "a snapshot that failed has left {packs:?}");
    let rows = listed();
    assert_eq!((&rows[0]["name"], &rows[0]["state"]), (&"it".into(), &"running".into()));
    assert_eq!(snapd(&["snapshots", "it", "--json"]).ok().json(), serde_json::json!([]));
    let events = snapd(&["events", "it"]).ok().stdout;
    assert!(events.contains("checkpoint-failed") || events.contains("checkpoint-skipped"), "{events}");
    snapd(&["kill", "it"]).ok();
});

trial!(
    /// A workload's obstacles, with the numbers that its processes have here and inside.
    obstacles_of_a_workload, 60, |lab| {
    let snapd = lab.snapd();
    let open = "import ctypes, subprocess
ctypes.CDLL(None).inotify_init1(0)
subprocess.run(['sleep', '1000'], stdin=open('/dev/kmsg'))";
    snapd.call(&["run", "-d", "--name", "it", "--", "python3", "-c", open]).ok();
    let pid = row(lab, "it")["pid"].clone();
    eventually("both have opened it", Duration::from_secs(20), || {
        let looked = snapd.call(&["doctor", "it", "--json"]).json();
        let obstacles = looked["obstacles"].as_array().unwrap().clone();
        let of = |field: &str| obstacles.iter().map(|one| one[field].as_i64().unwrap()).collect();
        let (host, inner): (Vec<i64>, Vec<i64>) = (of("pid"), of("inner_pid"));
        let first = row(lab, "it")["inner_pid"].as_i64().unwrap();
        let ours = host.iter().zip(&inner).all(|(host, inner)| {
            let status = fs::read_to_string(format!("/proc/{host}/status")).unwrap();
            status.contains(&format!("\t{inner}\n")) && (*inner == first) == (pid == *host)
        });
        assert!(ours, "{host:?} and {inner:?}");
        obstacles.len() >= 2
    });
    let refused = snapd.call(&["checkpoint", "it", "--json"]).exits(FAILED).says(&["/dev/kmsg"]);
    let looked = snapd.call(&["doctor", "it", "--json"]).exits(FAILED).json();
    assert_eq!(refused.json()["obstacles"], looked["obstacles"]);
    assert_eq!(row(lab, "it")["state"], "running");
    let events = snapd.call(&["events", "it"]).ok().stdout;
    assert!(events.contains("checkpoint-failed"), "{events}");
});

trial!(
    /// An image of another user's is not touched, unless one says so.
    an_image_of_another_user, 60, |lab| {
    let program = lab.start_subject("eventfd.c", &[]);
    lab.dump(&program, "images");
    let chown = ["-R", "nobody", lab.path("images").to_str().unwrap()].map(str::to_owned);
    assert!(Command::new("chown").args(chown).status().unwrap().success());
    let undump = ["undump", "--images", "images", "--detach"];
    lab.snapd().call(&undump).exits(FAILED).says(&["images", "--trust"]);
    assert!(!program.is_alive());
    lab.snapd().call(&[&undump[..], &["--trust"]].concat()).ok();
    program.check();
});
