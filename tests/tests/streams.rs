//! Standard streams of a workload that crashes: pipes, files and terminals, in and out. What was read
//! from a pipe is given again, what was written to a file is taken back, and the log reads like one
//! undisturbed run.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::{Lab, eventually, trial};

const NAME: &str = "streams";
const LINES: usize = 400;

fn shell(lab: &Lab, script: &str) -> Command {
    let mut command = lab.snapd().command(&[]);
    let snapd = command.get_program().to_owned();
    let envs: Vec<_> =
        command.get_envs().map(|(k, v)| (k.to_owned(), v.map(ToOwned::to_owned))).collect();
    command = Command::new("bash");
    command.args(["-c", script]).current_dir(lab.folder());
    for (name, value) in envs {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let run = format!("{} run --name {NAME} --every 300ms", snapd.to_string_lossy());
    let numbered = format!("/usr/bin/python3 {} 8", lab.subject("numbered.py").display());
    command.env("RUN", run).env("NUMBERED", numbered).stdin(Stdio::null());
    command
}

fn row(lab: &Lab) -> Option<Value> {
    let rows = lab.snapd().call(&["ls", "--json"]).ok().json();
    rows.as_array()?.iter().find(|row| row["name"] == NAME).cloned()
}

fn running(lab: &Lab) -> Option<i32> {
    let row = row(lab)?;
    let up = row["state"] == "running" || row["state"] == "checkpointing";
    i32::try_from(row["pid"].as_i64()?).ok().filter(|pid| up && *pid > 0)
}

/// Once it has run for a while and has a snapshot, kills it or its shim, and waits for the restore.
fn crash(lab: &Lab, whom: impl Fn(i32) -> i32) {
    let has_some = || row(lab).is_some_and(|row| row["snapshots"].as_u64() >= Some(3));
    eventually("three snapshots", Duration::from_secs(60), has_some);
    let pid = running(lab).expect("a running workload");
    kill(Pid::from_raw(whom(pid)), Signal::SIGKILL).unwrap();
    eventually("the restore", Duration::from_secs(60), || {
        row(lab).is_some_and(|row| row["restores"] == 1)
    });
}

fn shim_of(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    parent.trim().parse().unwrap()
}

fn expected() -> String {
    let lines: Vec<_> = (1..=LINES).map(|number| format!("{number}:{number}\n")).collect();
    format!("{}total {LINES}\n", lines.concat())
}

/// What the workload reads.
fn numbers() -> String {
    (1..=LINES).map(|number| number.to_string() + "\n").collect::<Vec<_>>().concat()
}

fn finish(mut child: Child) -> i32 {
    let mut code = None;
    eventually("the end", Duration::from_secs(120), || {
        code = child.try_wait().unwrap();
        code.is_some()
    });
    code.and_then(|code| code.code()).expect("an exit")
}

fn log(lab: &Lab) -> String {
    lab.snapd().call(&["logs", NAME]).ok().stdout
}

fn said(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

trial!(a_generator_before_and_tee_behind, 180, |lab| {
    let script = format!("seq 1 {LINES} | $RUN -- $NUMBERED 2>err | tee passed >/dev/null");
    let child = shell(lab, &script).spawn().unwrap();
    crash(lab, |pid| pid);
    assert_eq!(finish(child), 0);
    assert_eq!(log(lab), expected());
    // What had gone through a pipe cannot be taken back: some of it came twice, nothing is missing.
    let passed = said(&lab.path("passed"));
    assert!(passed.len() > expected().len() && passed.ends_with(&format!("total {LINES}\n")));
    for number in 1..=LINES {
        assert!(passed.contains(&format!("{number}:{number}\n")));
    }
    assert!(said(&lab.path("err")).contains("streams was restored from streams@"));
});

trial!(a_generator_outlives_the_shim, 180, |lab| {
    let slowly = format!("for i in $(seq 1 {LINES}); do echo $i; sleep 0.006; done");
    let script = format!("{{ {slowly}; }} | $RUN -- $NUMBERED >out 2>err");
    let child = shell(lab, &script).spawn().unwrap();
    crash(lab, shim_of);
    assert_eq!(finish(child), 0);
    assert_eq!(said(&lab.path("out")), expected());
});

trial!(files_in_and_out, 180, |lab| {
    fs::write(lab.path("in"), numbers()).unwrap();
    fs::write(lab.path("out"), "before\n").unwrap();
    // The shell goes on in the very file, behind what the workload has written.
    let script = "{ $RUN -- $NUMBERED <in 2>err; echo behind; } >>out";
    let child = shell(lab, script).spawn().unwrap();
    crash(lab, |pid| pid);
    assert_eq!(finish(child), 0);
    assert_eq!(said(&lab.path("out")), format!("before\n{}behind\n", expected()));
});

trial!(files_go_on_under_another_keeper, 180, |lab| {
    fs::write(lab.path("in"), numbers()).unwrap();
    let script = "$RUN -d -- $NUMBERED <in 2>err >out; exit 0";
    assert_eq!(finish(shell(lab, script).spawn().unwrap()), 0);
    eventually("three snapshots", Duration::from_secs(60), || {
        row(lab).is_some_and(|row| row["snapshots"].as_u64() >= Some(3))
    });
    // As a power cut would have it: nothing of it is left, not even who could bring it back.
    lab.kill_everything();
    lab.snapd().call(&["restore", NAME, "--detach"]).ok();
    eventually("the end", Duration::from_secs(60), || row(lab).unwrap()["state"] == "finished");
    let out = said(&lab.path("out"));
    assert_eq!(out.replacen(&format!("{NAME}\n"), "", 1), expected());
});

trial!(
    /// Whether its outputs are one pipe is the workload's affair. The streams of who brings it back used
    /// to decide, and no snapshot of a detached workload started with two could be restored.
    two_outputs_of_a_detached_workload, 180, |lab| {
    let script = "{ $RUN -d -- $NUMBERED <in | cat >name; } 2>&1 | cat >err";
    fs::write(lab.path("in"), numbers()).unwrap();
    assert_eq!(finish(shell(lab, script).spawn().unwrap()), 0);
    crash(lab, |pid| pid);
    eventually("the end", Duration::from_secs(60), || row(lab).unwrap()["state"] == "finished");
    let log = lab.snapd().call(&["logs", NAME]).ok().stdout;
    assert!(log.ends_with(&format!("total {LINES}\n")), "{log}");
});

/// What somebody at a terminal types and sees.
struct Screen {
    shell: Child,
    keys: ChildStdin,
    shown: PathBuf,
}

impl Screen {
    /// With this on it.
    fn new(lab: &Lab, script: &str) -> Self {
        let shown = lab.path("screen");
        let mut command = shell(lab, &format!("exec script -qefc {script:?} /dev/null"));
        command.env("PS1", "$ ").stdin(Stdio::piped()).stderr(Stdio::null());
        let mut shell = command.stdout(File::create(&shown).unwrap()).spawn().unwrap();
        let keys = shell.stdin.take().unwrap();
        Self { shell, keys, shown }
    }

    fn type_in(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).unwrap();
    }

    fn shows(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.shown).unwrap()).into_owned()
    }

    #[track_caller]
    fn sees(&self, text: &str) {
        self.sees_times(text, 1);
    }

    #[track_caller]
    fn sees_times(&self, text: &str, times: usize) {
        eventually(&format!("{text:?} on the screen"), Duration::from_secs(30), || {
            self.shows().matches(text).count() >= times
        });
    }
}

trial!(a_shell_on_a_terminal, 180, |lab| {
    let mut screen = Screen::new(lab, "$RUN -- bash --norc --noprofile -i");
    eventually("the shell", Duration::from_secs(30), || running(lab).is_some());
    screen.type_in("word=kept; echo is-$word\n");
    screen.sees("is-kept");
    screen.type_in("sleep 1000\n");
    std::thread::sleep(Duration::from_millis(500));
    screen.type_in("\u{3}");
    screen.type_in("echo interrupted-$?\n");
    screen.sees("interrupted-130");
    screen.type_in("sleep 1000\n");
    std::thread::sleep(Duration::from_millis(500));
    screen.type_in("\u{1a}");
    screen.type_in("echo stopped-$(jobs -s | wc -l)\n");
    screen.sees("stopped-1");
    screen.type_in("kill -9 %1; echo alone-$((6 * 7))\n");
    screen.sees("alone-42");
    let before = row(lab).unwrap()["snapshots"].as_u64();
    eventually("a snapshot of that", Duration::from_secs(30), || {
        row(lab).unwrap()["last_snapshot"].as_u64() > before.map(|seq| seq + 2)
    });
    crash(lab, |pid| pid);
    screen.sees("was restored from");
    screen.type_in("echo still-$word\n");
    screen.sees("still-kept");
    // What it starts has its descriptors too: none became close-on-exec.
    screen.type_in("/bin/echo outside-$((8 * 8))\n");
    screen.sees("outside-64");
    screen.type_in("\u{4}");
    assert_eq!(finish(screen.shell), 0);
});

trial!(
    /// A program that fills the screen is told to draw it again: after a restore there is another
    /// screen, or other things are on it.
    a_screen_is_drawn_again, 120, |lab| {
    let program = "import signal, sys
signal.signal(signal.SIGWINCH, lambda *_: print('drawn', flush=True))
print('begun', flush=True)
while True: signal.pause()";
    fs::write(lab.path("full.py"), program).unwrap();
    let screen = Screen::new(lab, "$RUN -- /usr/bin/python3 full.py");
    screen.sees("begun");
    assert!(!screen.shows().contains("drawn"), "nothing has changed yet");
    crash(lab, |pid| pid);
    screen.sees("drawn");
    lab.snapd().call(&["stop", NAME]).ok();
    finish(screen.shell);
});

trial!(
    /// A job that `^Z` has stopped, and its keeper with it: it is seen, nobody waits for it without an
    /// end, and it can be ended.
    a_job_that_is_stopped, 120, |lab| {
    let mut screen = Screen::new(lab, "bash --norc --noprofile -i");
    screen.type_in("$RUN -- sleep 1000\n");
    eventually("the job", Duration::from_secs(30), || running(lab).is_some());
    let pid = running(lab);
    screen.type_in("\u{1a}");
    screen.sees("Stopped");
    let stopped = row(lab).unwrap();
    assert_eq!((&stopped["state"], stopped["pid"].as_i64()), (&"paused".into(), pid.map(i64::from)));
    lab.snapd().call(&["checkpoint", NAME]).exits(5).says(&["stopped", "fg"]);
    screen.type_in("fg\n");
    eventually("it goes on", Duration::from_secs(30), || running(lab) == pid);
    lab.snapd().call(&["checkpoint", NAME]).ok();
    screen.type_in("\u{1a}");
    screen.sees_times("Stopped", 2);
    lab.snapd().call(&["stop", NAME]).ok();
    assert_eq!(row(lab).unwrap()["state"], "stopped");
    screen.type_in("exit\nexit\n");
    finish(screen.shell);
});
