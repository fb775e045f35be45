//! The virtual machine that other suites run in (`tests/vm`): a command in it ends as it would here, and
//! neither a machine that hangs nor one that dies passes for one in which all went well.

use std::process::{Command, Output};

/// A status that no command of ours ends with: the machine failed, not what ran in it.
const LAB_FAILED: i32 = 125;

fn in_machine(options: &[&str], command: &[&str]) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/vm");
    let mut machine = Command::new(script);
    machine.args(options).arg("bash").arg("-c").args(command);
    machine.output().expect("python3")
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_command_ends_there_as_it_would_here() {
    let command = "pwd; echo $0; uname -r; echo >/etc/written; seq 20000 | tail -1; exit 77";
    let output = in_machine(&[], &[command, "it's \"$1\""]);
    let (out, here) = (said(&output.stdout), std::env::current_dir().unwrap());
    assert_eq!(output.status.code(), Some(77), "{out}{}", said(&output.stderr));
    let lines: Vec<&str> = out.lines().collect();
    let [directory, name, kernel, refused, count] = lines[..] else { panic!("{out}") };
    assert_eq!((directory, name), (here.to_str().unwrap(), "it's \"$1\""));
    assert!(kernel.contains("cloud"), "{kernel} is not Debian's kernel for such machines");
    assert!(refused.contains("Read-only file system"), "{refused}");
    assert_eq!(count, "20000");
}

#[test]
fn a_machine_that_hangs_or_dies_is_no_success() {
    let hangs = in_machine(&["--limit", "20"], &["sleep 1000"]);
    assert_eq!(hangs.status.code(), Some(LAB_FAILED));
    assert!(said(&hangs.stderr).contains("not done within 20 s"), "{}", said(&hangs.stderr));
    let dies = in_machine(&[], &["echo c >/proc/sysrq-trigger; sleep 1000"]);
    assert_eq!(dies.status.code(), Some(LAB_FAILED));
    assert!(said(&dies.stderr).contains("sysrq triggered crash"), "{}", said(&dies.stderr));
}

/// What the lab is there for.
#[test]
fn its_kernel_marks_pages_that_are_written() {
    let snapd = tests::binary();
    let output = in_machine(&[], &["\"$0\" doctor --json", snapd.to_str().unwrap()]);
    let doctor: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", said(&output.stdout)));
    let features = doctor["features"].as_array().unwrap();
    let marks = features.iter().find(|feature| feature["name"] == "soft-dirty").unwrap();
    assert_eq!(marks["available"], true, "{doctor}");
}
