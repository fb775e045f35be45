//! Real programs through dump and undump, and through run, `kill -9` and recovery: python, node, Java,
//! Go, musl, bash, xz, redis, a compiler at work.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tests::{Ending, Lab, Program, Workload, eventually, full, trial};

/// The command line of a program in `tests/subjects/` that checks itself.
fn command(lab: &Lab, interpreter: &[&str], file: &str) -> Vec<String> {
    let mut command: Vec<String> = interpreter.iter().map(ToString::to_string).collect();
    command.push(lab.subject(file).to_str().unwrap().into());
    command
}

/// There and back, twice; then it checks itself.
fn dump_undump(lab: &Lab, interpreter: &[&str], file: &str) {
    let program = lab.start(&command(lab, interpreter, file));
    std::thread::sleep(Duration::from_millis(300));
    for images in ["images1", "images2"] {
        lab.dump(&program, images);
        lab.undump(&program, images);
        std::thread::sleep(Duration::from_millis(200));
    }
    program.check();
}

/// Supervised, killed with SIGKILL, restored by itself; then it checks itself.
fn run_kill_restore(lab: &Lab, interpreter: &[&str], file: &str) {
    let command = command(lab, interpreter, file);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut workload = Workload::run(lab, "program", &[], &command);
    workload.wait_for("READY");
    // Two crashes in a row: the second one goes a snapshot further back.
    workload.checkpoint();
    std::thread::sleep(Duration::from_millis(300));
    workload.checkpoint();
    workload.crash();
    workload.crash();
    workload.check();
}

trial!(
    /// The oracle under supervision: streams held by the shim, and clocks that go on, are no difference.
    verified, 300, |lab| {
    let command = command(lab, &["/usr/bin/python3"], "arithmetic.py");
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut workload = Workload::run(lab, "program", &[], &command);
    workload.wait_for("READY");
    workload.checkpoint();
    lab.snapd().call(&["restore", "program@1", "--replace", "--verify"]).ok();
    workload.check();
});

macro_rules! program {
    ($name:ident, $interpreter:expr, $file:expr) => {
        mod $name {
            tests::trial!(dump_undump, 300, |lab| super::dump_undump(lab, &$interpreter, $file));
            tests::trial!(run_kill_restore, 300, |lab| super::run_kill_restore(
                lab,
                &$interpreter,
                $file
            ));
        }
    };
}

program!(threads, [], "threads.c");
program!(streams, [], "streams.c");
program!(python, ["/usr/bin/python3"], "arithmetic.py");
program!(bash, ["/bin/bash"], "pipeline.sh");
program!(node, ["/usr/bin/node"], "timers.js");
program!(java, ["/usr/bin/java", "-Xmx256m"], "Load.java");
program!(go, [], "goroutines.go");
program!(static_, [], "counter.c");
program!(musl, [], "counter_musl.c");

/// Numbers as text: compressible, but not in no time.
fn write_input(path: &Path, mebibytes: usize) {
    let mut file = std::io::BufWriter::new(fs::File::create(path).unwrap());
    let mut value = 1_u64;
    let mut written = 0;
    while written < mebibytes << 20 {
        value =
            value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let line = format!("{} {:x}\n", written, value >> 40);
        file.write_all(line.as_bytes()).unwrap();
        written += line.len();
    }
}

trial!(xz, 600, |lab| {
    // Of the large one, xz alone makes ten minutes' work.
    let (mebibytes, minutes) = if full() { (200, 60) } else { (24, 6) };
    write_input(&lab.path("in"), mebibytes);
    let program = lab.start_unready(&["/bin/sh", "-c", "xz -9 -T1 -c <in >out"]);
    for images in ["images1", "images2", "images3"] {
        std::thread::sleep(Duration::from_millis(1500));
        lab.dump(&program, images);
        lab.undump(&program, images);
    }
    assert_eq!(program.ending_within(Duration::from_mins(minutes)), Ending::Status(0));
    let same =
        Command::new("sh").args(["-c", "xz -dc out | cmp - in"]).current_dir(lab.folder()).status();
    assert!(same.unwrap().success(), "what was compressed is not what was given");
});

trial!(make, 300, |lab| {
    for folder in ["built", "disturbed"] {
        let folder = lab.path(folder);
        fs::create_dir(&folder).unwrap();
        write_project(&folder, 8);
    }
    let make = |folder: &str| lab.start_unready(&["/usr/bin/make", "-s", "-j2", "-C", folder]);
    assert_eq!(make("built").ending_within(Duration::from_secs(120)), Ending::Status(0));
    let program = make("disturbed");
    for round in 0..3 {
        std::thread::sleep(Duration::from_millis(500));
        if !program.is_alive() {
            break;
        }
        dump_when_free(lab, &program, &format!("images{round}"));
        lab.undump(&program, &format!("images{round}"));
    }
    assert_eq!(
        program.ending_within(Duration::from_secs(120)),
        Ending::Status(0),
        "{}",
        program.output()
    );
    let [built, disturbed] =
        ["built/program", "disturbed/program"].map(|path| fs::read(lab.path(path)).unwrap());
    assert!(built == disturbed, "the program built is another one");
});

/// A child in vfork makes a checkpoint busy (exit 5): then again.
fn dump_when_free(lab: &Lab, program: &Program, images: &str) {
    let pid = program.pid().to_string();
    eventually("a moment without vfork", Duration::from_secs(20), || {
        let outcome = lab.snapd().call(&["dump", "--pid", &pid, "--images", images]);
        if outcome.code == 5 { false } else { outcome.ok().code == 0 }
    });
    program.ending();
}

fn write_project(folder: &Path, parts: usize) {
    let names: Vec<String> = (0..parts).map(|part| format!("part{part}")).collect();
    for name in &names {
        let mut text = String::from("#include <stdio.h>\n#include <stdlib.h>\n#include <math.h>\n");
        for number in 0..150 {
            use std::fmt::Write;
            writeln!(text, "int {name}_{number}(int a, int *b) {{ for (int i = 0; i < a; i++) b[i] = b[i] * {number} + a % (i + 1); return b[a / 2]; }}").unwrap();
        }
        fs::write(folder.join(format!("{name}.c")), text).unwrap();
    }
    fs::write(folder.join("main.c"), "int main(void) { return 0; }\n").unwrap();
    let objects: Vec<String> = names.iter().map(|name| format!("{name}.o")).collect();
    let makefile = format!("CFLAGS = -O2\nprogram: main.o {}\n\tgcc -o $@ $^\n", objects.join(" "));
    fs::write(folder.join("Makefile"), makefile).unwrap();
}

trial!(redis, 180, |lab| {
    let port = free_port().to_string();
    let server =
        ["/usr/bin/redis-server", "--port", &port, "--save", "", "--enable-debug-command", "local"];
    let program = lab.start_unready(&server);
    let ask = |question: &[&str]| {
        let output = Command::new("redis-cli").args(["-p", &port]).args(question).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_string()
    };
    eventually("redis answers", Duration::from_secs(20), || ask(&["ping"]) == "PONG");
    assert_eq!(ask(&["debug", "populate", "100000", "key", "100"]), "OK");
    let digest = ask(&["debug", "digest"]);
    assert_eq!(digest.len(), 40, "{digest}");
    let pid = program.pid().to_string();

    let client = lab.start_unready(&["/usr/bin/redis-cli", "-p", &port, "blpop", "nothing", "0"]);
    eventually("a client is connected", Duration::from_secs(10), || {
        ask(&["client", "list"]).contains("blpop")
    });
    let refused = lab.snapd().call(&["dump", "--pid", &pid, "--images", "refused"]).exits(1);
    refused.says(&["tcp"]);
    assert!(program.is_alive());
    lab.snapd()
        .call(&["dump", "--leave-running", "--pid", &pid, "--images", "closed", "--tcp", "close"])
        .ok();
    client.kill();

    lab.dump(&program, "images");
    lab.undump(&program, "images");
    assert_eq!(ask(&["debug", "digest"]), digest);
    assert_eq!(ask(&["dbsize"]), "100000");
    program.kill();
});

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
