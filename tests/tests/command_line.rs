//! The command line as people and scripts see it: help, completions, manual pages, and the fields of
//! `--json`, which nobody may rename.
//!
//! Help is compared with `tests/golden/help.txt`: whoever changes it looks at the difference, and takes
//! it over with `SNAPD_BLESS=1`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tests::{Lab, Snapd, binary, eventually, trial};

const COMMANDS: &[&str] = &[
    "run",
    "checkpoint",
    "restore",
    "rollback",
    "stop",
    "kill",
    "ls",
    "snapshots",
    "show",
    "logs",
    "events",
    "doctor",
    "dump",
    "undump",
    "completions",
    "man",
];

fn called(args: &[&str]) -> String {
    let mut snapd = Command::new(binary());
    snapd.args(args).env_remove("COLUMNS").env_remove("SNAPD_DIR").stdin(Stdio::null());
    let output = snapd.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{args:?}: {:?}\n{said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn help_is_as_it_was_agreed_on() {
    let mut help = called(&["--help"]);
    for command in COMMANDS {
        let of_command = called(&[command, "--help"]);
        assert!(of_command.contains(&format!("Usage: snapd {command}")), "{of_command}");
        assert!(of_command.contains("Example"), "{command} --help has no example");
        help.extend([&*format!("\n==== snapd {command}\n\n"), &of_command]);
    }
    let listed = help.lines().filter(|line| line.starts_with("  ")).collect::<Vec<_>>();
    for command in COMMANDS {
        let named = |line: &&str| line.trim_start().starts_with(&format!("{command} "));
        assert!(listed.iter().any(named), "{command} is not in --help");
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/help.txt");
    if std::env::var_os("SNAPD_BLESS").is_some_and(|value| value == "1") {
        fs::write(&golden, &help).unwrap();
    }
    let agreed = fs::read_to_string(&golden).unwrap();
    let changed = help.lines().zip(agreed.lines()).find(|(now, then)| now != then);
    assert!(help == agreed, "help has changed (SNAPD_BLESS=1 takes it over), first: {changed:?}");
}

#[test]
fn the_version_is_the_packages() {
    assert_eq!(called(&["--version"]), format!("snapd {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_are_scripts() {
    for (shell, word) in [("bash", "COMPREPLY"), ("zsh", "#compdef snapd"), ("fish", "complete -c")]
    {
        let script = called(&["completions", shell]);
        assert!(script.contains(word) && script.contains("checkpoint"), "{shell}");
    }
    let script = called(&["completions", "bash"]);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("snapd"), script).unwrap();
    let mut bash = Command::new("bash");
    let complete = "source ./snapd && COMP_WORDS=(snapd check) COMP_CWORD=1 && \
                    _snapd snapd check snapd && echo \"${COMPREPLY[*]}\"";
    let output = bash.args(["-c", complete]).current_dir(folder.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "checkpoint\n", "{output:?}");
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    called(&["man", folder.path().to_str().unwrap()]);
    for command in COMMANDS {
        let page = fs::read_to_string(folder.path().join(format!("snapd-{command}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS") && page.contains("Example"), "{command}");
    }
    assert!(folder.path().join("snapd.1").exists());
}

/// Exactly these fields, or these and new ones: none of them gone.
#[track_caller]
fn has_fields(object: &Value, fields: &[&str]) {
    let object = object.as_object().unwrap_or_else(|| panic!("{object} is no object"));
    let there: BTreeSet<&str> = object.keys().map(String::as_str).collect();
    let gone: Vec<_> = fields.iter().filter(|field| !there.contains(**field)).collect();
    assert!(gone.is_empty(), "{gone:?} are not in {there:?}");
}

/// RFC 3339, in UTC.
#[track_caller]
fn is_time(value: &Value) {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no time"));
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert!(shape.starts_with("0000-00-00T00:00:00") && shape.ends_with('Z'), "{text}");
}

const SNAPSHOT: &[&str] = &[
    "name",
    "seq",
    "id",
    "parent",
    "taken_at",
    "trigger",
    "pause_ms",
    "took_ms",
    "memory_bytes",
    "changed_bytes",
    "stored_bytes",
    "processes",
    "threads",
    "tags",
    "pinned",
    "state",
    "tracker",
];

/// A workload with a child, a socket, a timer and lines in its log, saved twice.
fn prepared(lab: &Lab) -> Snapd {
    let program = "
import os, select, signal, socket, subprocess, sys
listening = socket.socket()
listening.bind(('127.0.0.1', 0))
listening.listen()
pair = socket.socketpair()
signal.signal(signal.SIGALRM, lambda *_: 0)
signal.setitimer(signal.ITIMER_REAL, 3600, 60)
subprocess.Popen(['sleep', '1000'])
out = open('lines', 'w')
print('one', file=out, flush=True)
os.write(1, b'one\\ntwo\\n')
os.write(2, b'three\\n')
signal.pause()
";
    // Its output is a pipe of ours, so that there is a log.
    let script = "exec \"$0\" run --name it -- python3 -c \"$1\" \
                  < /dev/null > >(cat > shown) 2> >(cat > errors)";
    let mut shell = Command::new("bash");
    shell.args(["-c", script]).arg(binary()).arg(program).current_dir(lab.folder());
    shell.env("SNAPD_DIR", lab.path("state")).stdin(Stdio::null());
    let run = shell.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::spawn(move || { run }.wait());
    let snapd = lab.snapd();
    eventually("it has written", Duration::from_secs(30), || {
        fs::read_to_string(lab.path("errors")).is_ok_and(|shown| shown.contains("three"))
    });
    snapd.call(&["checkpoint", "it", "--tag", "first"]).ok();
    snapd
}

trial!(json_of_workloads, 60, |lab| {
    let snapd = prepared(lab);
    let rows = snapd.call(&["ls", "--json"]).ok().json();
    let row = &rows[0];
    has_fields(
        row,
        &[
            "name",
            "pid",
            "inner_pid",
            "state",
            "started_at",
            "snapshots",
            "last_snapshot",
            "last_snapshot_at",
            "next_at",
            "restarts",
            "restores",
            "exit_code",
        ],
    );
    assert_eq!((&row["name"], &row["state"]), (&"it".into(), &"running".into()));
    assert_eq!((&row["snapshots"], &row["last_snapshot"]), (&1.into(), &1.into()));
    let comm = fs::read_to_string(format!("/proc/{}/comm", row["pid"])).unwrap();
    assert_eq!(comm, "python3\n", "pid is the one on the host");
    is_time(&row["started_at"]);
    is_time(&row["last_snapshot_at"]);
    assert_eq!((&row["next_at"], &row["exit_code"]), (&Value::Null, &Value::Null));
    let people = snapd.call(&["ls"]).ok().stdout;
    let head: Vec<_> = people.lines().next().unwrap().split_whitespace().collect();
    let columns = ["NAME", "STATE", "PID", "UPTIME", "SNAPSHOTS", "LAST", "NEXT", "RESTARTS"];
    assert_eq!(head, columns);
    assert!(!people.contains('\x1b'), "colours into a file");
    snapd.call(&["stop", "it"]).ok();
    let rows = snapd.call(&["ls", "--json"]).ok().json();
    assert_eq!((&rows[0]["state"], &rows[0]["pid"]), (&"stopped".into(), &Value::Null));
});

trial!(json_of_snapshots, 60, |lab| {
    let snapd = prepared(lab);
    let taken = snapd.call(&["checkpoint", "it", "--json", "--tag", "a", "--tag", "b"]).ok().json();
    let listed = snapd.call(&["snapshots", "it", "--json"]).ok().json();
    assert_eq!(listed[1], taken, "checkpoint prints the object that snapshots shows");
    has_fields(&taken, SNAPSHOT);
    is_time(&taken["taken_at"]);
    assert_eq!(
        (&taken["name"], &taken["seq"], &taken["parent"]),
        (&"it".into(), &2.into(), &1.into())
    );
    assert_eq!((&taken["tags"], &taken["pinned"]), (&serde_json::json!(["a", "b"]), &false.into()));
    assert_eq!((&taken["trigger"], &taken["state"]), (&"request".into(), &"complete".into()));
    assert_eq!((&taken["processes"], &taken["threads"]), (&2.into(), &2.into()));
    let number = |field: &str| taken[field].as_f64().unwrap_or_else(|| panic!("{field}"));
    assert!(number("took_ms") >= number("pause_ms") && number("pause_ms") > 0.0, "{taken}");
    assert!(number("memory_bytes") >= number("changed_bytes"), "{taken}");
    assert!(number("memory_bytes") > 1e6, "python holds more than a megabyte: {taken}");
    assert!(["soft-dirty", "write-protect", "full"].contains(&taken["tracker"].as_str().unwrap()));
    let people = snapd.call(&["snapshots"]).ok().stdout;
    let head: Vec<_> = people.lines().next().unwrap().split_whitespace().collect();
    let columns = [
        "SNAPSHOT", "TAKEN", "TRIGGER", "PAUSE", "TOOK", "MEMORY", "NEW-DATA", "STORED", "TAGS",
        "STATE",
    ];
    assert_eq!(head, columns);
    assert!(people.contains("it@1") && people.contains("a,b"), "{people}");
});

trial!(json_of_what_a_snapshot_holds, 60, |lab| {
    let snapd = prepared(lab);
    let shown = snapd.call(&["show", "it", "--json"]).ok().json();
    has_fields(&shown, SNAPSHOT);
    has_fields(&shown, &["tree", "memory", "files", "sockets", "timers", "notes"]);
    let tree = shown["tree"].as_array().unwrap();
    assert_eq!(tree.len(), 2);
    for one in tree {
        has_fields(one, &["pid", "ppid", "pgid", "sid", "state", "threads", "command"]);
    }
    assert_eq!(tree[1]["command"], "sleep 1000");
    assert_eq!(tree[1]["ppid"], tree[0]["pid"]);
    let memory = shown["memory"].as_array().unwrap();
    for one in memory {
        has_fields(one, &["pid", "start", "end", "perm", "name", "resident_bytes"]);
    }
    for name in ["[heap]", "[stack]", "[vdso]"] {
        assert!(memory.iter().any(|one| one["name"] == name), "{name}");
    }
    let resident: u64 = memory.iter().filter_map(|one| one["resident_bytes"].as_u64()).sum();
    assert!(resident > 1_000_000, "{resident}");
    let files = shown["files"].as_array().unwrap();
    for one in files {
        has_fields(one, &["pid", "fd", "kind", "target", "position", "flags"]);
    }
    let lines = lab.path("lines");
    let lines = files.iter().find(|one| one["target"] == lines.to_str().unwrap()).unwrap();
    assert_eq!((&lines["kind"], &lines["position"]), (&"file".into(), &4.into()));
    let sockets = shown["sockets"].as_array().unwrap();
    assert_eq!(sockets.len(), 3);
    let listens = sockets.iter().find(|one| one["state"] == "listening").unwrap();
    assert!(listens["local"].as_str().unwrap().starts_with("127.0.0.1:"), "{listens}");
    let timers = shown["timers"].as_array().unwrap();
    assert_eq!((timers.len(), &timers[0]["interval_ms"]), (1, &60_000.0.into()));
    // A part alone.
    let part = snapd.call(&["show", "it@1", "--what", "tree", "--json"]).ok().json();
    assert_eq!((&part["tree"], part.get("memory")), (&shown["tree"], None));
    let people = snapd.call(&["show", "it", "--what", "all"]).ok().stdout;
    for word in ["sleep 1000", "[heap]", "127.0.0.1:", "it@1", "first"] {
        assert!(people.contains(word), "{word} is not in\n{people}");
    }
});

trial!(json_of_events_and_logs, 60, |lab| {
    let snapd = prepared(lab);
    let lines = |outcome: tests::Outcome| -> Vec<Value> {
        let lines = outcome.stdout.lines().map(|line| serde_json::from_str(line).expect(line));
        lines.collect()
    };
    let events = lines(snapd.call(&["events", "it", "--json"]).ok());
    for event in &events {
        has_fields(event, &["at", "name", "kind", "seq", "reason", "detail"]);
        is_time(&event["at"]);
    }
    let kinds: Vec<_> = events.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["started", "checkpointed"]);
    assert_eq!(events[1]["seq"], 1);
    let logs = lines(snapd.call(&["logs", "it", "--json"]).ok());
    let told: Vec<_> =
        logs.iter().map(|one| (one["stream"].as_str(), one["text"].as_str())).collect();
    let (out, error) = (Some("stdout"), Some("stderr"));
    assert_eq!(told, [(out, Some("one")), (out, Some("two")), (error, Some("three"))]);
    for one in &logs {
        is_time(&one["at"]);
    }
    assert_eq!(snapd.call(&["logs", "it"]).ok().stdout, "one\ntwo\nthree\n");
    assert_eq!(snapd.call(&["logs", "it", "-n", "2"]).ok().stdout, "two\nthree\n");
    assert_eq!(snapd.call(&["logs", "it", "-n", "0"]).ok().stdout, "");
});

trial!(json_of_restores, 60, |lab| {
    let snapd = prepared(lab);
    snapd.call(&["kill", "it"]).ok();
    let restored = snapd.call(&["restore", "-d", "it", "--json"]).ok().json();
    has_fields(&restored, &["name", "seq", "pid", "took_ms"]);
    assert_eq!((&restored["name"], &restored["seq"]), (&"it".into(), &1.into()));
    let rows = snapd.call(&["ls", "--json"]).ok().json();
    assert_eq!(rows[0]["pid"], restored["pid"]);
    let back = snapd.call(&["rollback", "it@1", "--json"]).ok().json();
    has_fields(&back, &["name", "seq", "pid", "took_ms"]);
    assert_ne!(back["pid"], restored["pid"]);
    snapd.call(&["doctor", "it"]).ok();
});

trial!(following, 60, |lab| {
    let snapd = prepared(lab);
    let events = snapd.spawn(&["events", "it", "-f", "--json"]);
    snapd.call(&["checkpoint", "it"]).ok();
    eventually("the event is told", Duration::from_secs(20), || {
        events.stdout().lines().filter(|line| line.contains("\"checkpointed\"")).count() == 2
    });
    events.kill();
    let logs = snapd.spawn(&["logs", "it", "-f", "-n", "1"]);
    eventually("the last line is shown", Duration::from_secs(20), || logs.stdout() == "three\n");
    logs.kill();
});

trial!(doctor_tells_of_this_machine, 30, |lab| {
    let looked = lab.snapd().call(&["doctor", "--json"]).ok().json();
    has_fields(&looked, &["kernel", "features", "obstacles"]);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(looked["kernel"], kernel.trim());
    let features = looked["features"].as_array().unwrap();
    assert!(features.len() >= 10);
    for one in features {
        has_fields(one, &["name", "available", "purpose", "remedy"]);
    }
    assert_eq!(looked["obstacles"], serde_json::json!([]));
});

trial!(images_directly, 60, |lab| {
    let program = lab.start_subject("eventfd.c", &[]);
    let pid = program.pid().to_string();
    let snapd = lab.snapd();
    let dump = ["dump", "--json", "--pid", &pid, "--images", "images"];
    has_fields(&snapd.call(&dump).ok().json(), SNAPSHOT);
    assert_eq!(program.ending(), tests::Ending::Signal(9));
    let undump = ["undump", "--json", "--images", "images", "--detach", "--pidfile", "pid"];
    let restored = snapd.call(&undump).ok().json();
    assert_eq!(restored["pid"], program.pid());
    assert_eq!(fs::read_to_string(lab.path("pid")).unwrap(), format!("{pid}\n"));
    program.check();
});

trial!(
    /// What the parent has is not stored again; and the image does not need it.
    a_parent_shares_what_is_the_same, 120, |lab| {
    let program = lab.start_subject("memory.c", &["32"]);
    let pid = program.pid().to_string();
    let snapd = lab.snapd();
    let first = ["dump", "--json", "--leave-running", "--pid", &pid, "--images", "first"];
    let first = snapd.call(&first).ok().json();
    let second = ["dump", "--json", "--pid", &pid, "--images", "second", "--parent", "../first"];
    let second = snapd.call(&second).ok().json();
    assert_eq!(program.ending(), tests::Ending::Signal(9));
    let stored = |image: &Value| image["stored_bytes"].as_u64().unwrap();
    assert!(stored(&second) * 10 < stored(&first), "{second} after {first}");
    assert_eq!(second["tracker"], "full");
    fs::remove_dir_all(lab.path("first")).unwrap();
    lab.undump(&program, "second");
    program.check();
});

trial!(
    /// A job of a shell, its terminal left out, goes on at another terminal.
    a_job_changes_its_terminal, 60, |lab| {
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("subjects/job.py");
    let mut python = Command::new("python3");
    python.arg(script).arg(binary()).current_dir(lab.folder()).stdin(Stdio::null());
    let output = python.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.lines().last(), Some("OK"), "{said}");
});
