//! Shim and keeper with plain programs, as root: namespaces, streams, log, ends, and keepers that die.
//!
//! A keeper makes its shim by executing its own program, so this test program is one: with a hidden
//! command it does that command's work, else it runs the tests, each in a directory of its own.
#![allow(
    clippy::print_stdout,
    clippy::format_collect,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use policies::restart::Restart;
use supervisor::home::Home;
use supervisor::options::{Done, Ear, Run, Stop};
use supervisor::{client, launch, log, shim};

type Test = (&'static str, fn(&Path));

const TESTS: [Test; 9] = [
    ("it_lives_in_namespaces_of_its_own", it_lives_in_namespaces_of_its_own),
    ("its_status_is_passed_on", its_status_is_passed_on),
    ("a_pipe_goes_through_and_into_the_log", a_pipe_goes_through_and_into_the_log),
    ("a_reader_that_leaves_ends_a_writer", a_reader_that_leaves_ends_a_writer),
    ("input_from_a_pipe_arrives_whole", input_from_a_pipe_arrives_whole),
    ("what_is_left_of_the_tree_ends_too", what_is_left_of_the_tree_ends_too),
    ("it_outlives_its_keeper", it_outlives_its_keeper),
    ("it_runs_only_once", it_runs_only_once),
    ("a_shim_that_is_killed_is_a_crash", a_shim_that_is_killed_is_a_crash),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let code = match words.as_slice() {
        ["__shim"] => shim::main().map(|()| 0),
        ["__keeper", ..] => launch::keeper_main(&args[1..]),
        ["run", dir, name, restart, command @ ..] => run(dir, name, restart, command),
        _ => return test(&words),
    };
    ExitCode::from(u8::try_from(code.unwrap_or(99)).unwrap_or(98))
}

fn run(dir: &str, name: &str, restart: &str, command: &[&str]) -> supervisor::Result<i32> {
    let home = Home::open(Path::new(dir))?;
    let mut options = Run::new(command.iter().map(|word| word.as_bytes().to_vec()).collect());
    options.name = Some(name.to_owned());
    if restart == "no" {
        options.restart = Restart::No;
    }
    options.detach = restart == "detached";
    Ok(match launch::run(&home, &options, &Ear::default())? {
        Done::Ended(status) => status,
        Done::Detached(_) => 0,
    })
}

fn test(words: &[&str]) -> ExitCode {
    let filter = words.iter().find(|word| !word.starts_with('-'));
    if words.contains(&"--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    assert!(nix::unistd::geteuid().is_root(), "these tests need root");
    let chosen = TESTS.iter().filter(|(name, _)| filter.is_none_or(|part| name.contains(part)));
    for (name, test) in chosen {
        let dir = tempfile::tempdir().unwrap();
        test(dir.path());
        println!("test {name} ... ok");
    }
    ExitCode::SUCCESS
}

/// `snapd run`, as it were; `how` is `no`, `on-failure` or `detached`.
fn snapd(dir: &Path, how: &str, script: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("run").arg(dir).args(["it", how, "sh", "-c", script]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

fn finish(mut child: Child) -> (i32, String) {
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code().unwrap(), said)
}

fn logged(dir: &Path, all: bool) -> String {
    let lines = log::visible(&dir.join("logs/it.log")).unwrap().into_iter();
    let lines = lines.filter(|line| line.record.source.is_output() && (all || !line.undone));
    lines.map(|line| String::from_utf8(line.record.bytes).unwrap()).collect()
}

fn within(seconds: u64, mut what: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !what() {
        assert!(Instant::now() < end, "it did not come about in {seconds} s");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn it_lives_in_namespaces_of_its_own(dir: &Path) {
    let script = "echo $$; cut -d' ' -f1 /proc/1/comm; for n in pid mnt ipc time; do
        readlink /proc/self/ns/$n; done";
    let (code, said) = finish(snapd(dir, "no", script).spawn().unwrap());
    let lines: Vec<_> = said.lines().collect();
    assert_eq!((code, lines[0]), (0, "2"));
    for (line, name) in lines[2..].iter().zip(["pid", "mnt", "ipc", "time"]) {
        let ours = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(ours.to_str().unwrap(), *line);
        assert!(line.starts_with(name));
    }
}

fn its_status_is_passed_on(dir: &Path) {
    for (script, expected) in [("exit 7", 7), ("kill -TERM $$", 143), ("kill -SEGV $$", 139)] {
        let (code, _) = finish(snapd(dir, "no", script).spawn().unwrap());
        assert_eq!(code, expected, "{script}");
    }
}

fn a_pipe_goes_through_and_into_the_log(dir: &Path) {
    let (_, said) = finish(snapd(dir, "no", "seq 20000").spawn().unwrap());
    let expected: String = (1..=20_000).map(|n| format!("{n}\n")).collect();
    assert!(said == expected);
    assert!(logged(dir, false) == expected);
}

fn a_reader_that_leaves_ends_a_writer(dir: &Path) {
    let mut child = snapd(dir, "no", "exec yes").spawn().unwrap();
    let mut some = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 13));
}

fn input_from_a_pipe_arrives_whole(dir: &Path) {
    let mut child = snapd(dir, "no", "cksum").stdin(Stdio::piped()).spawn().unwrap();
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    let mut input = child.stdin.take().unwrap();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || input.write_all(&sent).unwrap());
    let (code, said) = finish(child);
    writer.join().unwrap();
    let path = dir.join("bytes");
    fs::write(&path, &bytes).unwrap();
    let direct = Command::new("cksum").stdin(File::open(&path).unwrap()).output().unwrap();
    assert_eq!((code, said.as_bytes()), (0, direct.stdout.as_slice()));
}

fn what_is_left_of_the_tree_ends_too(dir: &Path) {
    let script = "setsid sleep 1000 & sleep 0.1; echo gone";
    let began = Instant::now();
    let (code, _) = finish(snapd(dir, "no", script).spawn().unwrap());
    assert_eq!(code, 0);
    // It listened to TERM: nobody had to wait for the KILL.
    assert!(began.elapsed() < Duration::from_secs(5));
    let home = Home::open(dir).unwrap();
    assert!(!home.is_locked("it", "lock").unwrap());
}

/// The keeper's pid: the process that the socket it listens on belongs to.
fn keeper(home: &Home) -> Pid {
    let socket = home.connect("it", "control").unwrap();
    let peer = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::PeerCredentials);
    Pid::from_raw(peer.unwrap().pid())
}

fn it_outlives_its_keeper(dir: &Path) {
    let script = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo $i; sleep 0.01; done";
    let mut started = snapd(dir, "detached", script);
    assert!(started.status().unwrap().success());
    let home = Home::open(dir).unwrap();
    let before = client::status(&home, "it").unwrap().live.unwrap();
    for _ in 0..5 {
        kill(keeper(&home), Signal::SIGKILL).unwrap();
        within(5, || !home.is_locked("it", "keeper").unwrap());
        // Whoever asks gives it a new one.
        let live = client::status(&home, "it").unwrap().live.unwrap();
        assert_eq!((live.pid, live.state.as_str()), (before.pid, "running"));
    }
    within(20, || client::status(&home, "it").unwrap().live.is_none());
    assert_eq!(client::status(&home, "it").unwrap().entry.state, "finished");
    let expected: String = (1..=300).map(|n| format!("{n}\n")).collect();
    assert_eq!(logged(dir, false), expected);
}

fn it_runs_only_once(dir: &Path) {
    assert!(snapd(dir, "detached", "sleep 100").status().unwrap().success());
    let home = Home::open(dir).unwrap();
    let second = snapd(dir, "no", "true").status().unwrap();
    assert_eq!(second.code(), Some(99), "refused");
    client::stop(&home, "it", &Stop::default(), &Ear::default()).unwrap();
    within(5, || !client::is_running(&home, "it").unwrap());
    let entry = client::status(&home, "it").unwrap().entry;
    assert_eq!((entry.state.as_str(), entry.exit_code), ("stopped", Some(143)));
}

fn a_shim_that_is_killed_is_a_crash(dir: &Path) {
    let script = "echo again; sleep 100";
    assert!(snapd(dir, "detached", script).status().unwrap().success());
    let home = Home::open(dir).unwrap();
    let first = client::status(&home, "it").unwrap().live.unwrap().pid;
    let status = fs::read_to_string(format!("/proc/{first}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    kill(Pid::from_raw(parent.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
    let again = || client::status(&home, "it").unwrap().live.map_or(0, |live| live.pid);
    within(5, || again() != 0 && again() != first);
    assert!(!Path::new(&format!("/proc/{first}")).exists());
    within(5, || logged(dir, true) == "again\nagain\n");
    assert_eq!(logged(dir, false), "again\n", "what the crash undid is hidden");
    client::kill(&home, "it").unwrap();
}
