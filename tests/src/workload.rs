//! A workload: a program that `snapd run` supervises, seen through snapd's own commands.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::{Lab, Outcome, Running, Snapd, eventually};

/// A supervised program of a trial.
#[derive(Debug)]
pub struct Workload<'a> {
    lab: &'a Lab,
    name: String,
    run: Option<Running>,
}

impl<'a> Workload<'a> {
    /// `snapd run --name NAME OPTIONS -- COMMAND` in the foreground, until it is there.
    #[track_caller]
    pub fn run(lab: &'a Lab, name: &str, options: &[&str], command: &[&str]) -> Self {
        Self::run_by(lab, &lab.snapd(), name, options, command)
    }

    /// Likewise, with this snapd.
    #[track_caller]
    pub fn run_by(
        lab: &'a Lab,
        snapd: &Snapd,
        name: &str,
        options: &[&str],
        command: &[&str],
    ) -> Self {
        let mut args = vec!["run", "--name", name];
        args.extend(options);
        args.push("--");
        args.extend(command);
        let mut workload = Self { lab, name: name.into(), run: Some(snapd.spawn(&args)) };
        eventually(&format!("{name} runs"), Duration::from_secs(60), || {
            workload.fail_if_over();
            matches!(workload.state().as_deref(), Some("running" | "checkpointing"))
        });
        workload
    }

    /// The keeper's PID, while it is the one that `run` began with.
    pub fn keeper(&self) -> i32 {
        self.run.as_ref().expect("run in the foreground").pid()
    }

    /// What its standard output has by now.
    pub fn output(&self) -> String {
        self.run.as_ref().map(Running::stdout).unwrap_or_default()
    }

    /// Waits until a line of its output is `line`.
    #[track_caller]
    pub fn wait_for(&mut self, line: &str) {
        eventually(&format!("{} says {line}", self.name), Duration::from_secs(30), || {
            self.fail_if_over();
            self.output().lines().any(|one| one == line)
        });
    }

    #[track_caller]
    fn fail_if_over(&mut self) {
        if self.run.as_mut().is_some_and(Running::is_over) {
            let outcome = self.run.take().map(|run| run.wait(Duration::from_secs(1)));
            panic!("{} is over: {outcome:?}", self.name);
        }
    }

    /// The row of `snapd ls --json`.
    #[track_caller]
    pub fn row(&self) -> Option<Value> {
        let rows = self.lab.snapd().call(&["ls", "--json"]).ok().json();
        let rows = rows.as_array().cloned().unwrap_or_default();
        rows.into_iter().find(|row| row["name"] == self.name.as_str())
    }

    /// Its state, as `snapd ls` says it.
    pub fn state(&self) -> Option<String> {
        Some(self.row()?["state"].as_str()?.into())
    }

    /// The PID of its first process, here.
    pub fn pid(&self) -> Option<i32> {
        i32::try_from(self.row()?["pid"].as_i64()?).ok()
    }

    /// How often it was restored.
    pub fn restores(&self) -> u64 {
        self.row().and_then(|row| row["restores"].as_u64()).unwrap_or(0)
    }

    /// How many snapshots it has.
    pub fn snapshots(&self) -> Vec<Value> {
        let outcome = self.lab.snapd().call(&["snapshots", &self.name, "--json"]).ok().json();
        outcome.as_array().cloned().unwrap_or_default()
    }

    /// Takes a snapshot now.
    #[track_caller]
    pub fn checkpoint(&self) -> Outcome {
        self.lab.snapd().call(&["checkpoint", &self.name]).ok()
    }

    /// Kills the program with SIGKILL and waits until it runs again: restored, or started afresh
    /// after too many crashes in a row.
    #[track_caller]
    pub fn crash(&self) {
        let running = || {
            let state = self.state()?;
            self.pid().filter(|pid| *pid > 0 && (state == "running" || state == "checkpointing"))
        };
        let mut pid = None;
        eventually(&format!("{} runs", self.name), Duration::from_secs(60), || {
            pid = running();
            pid.is_some()
        });
        let before = pid.expect("the condition held");
        kill(Pid::from_raw(before), Signal::SIGKILL).expect("the workload's first process");
        eventually(&format!("{} runs again", self.name), Duration::from_secs(60), || {
            running().is_some_and(|pid| pid != before)
        });
    }

    /// Tells the program to check itself, and expects that it passes; the workload is over then.
    #[track_caller]
    pub fn check(mut self) {
        let pid = self.pid().expect("a running workload");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let dead = status.lines().any(|line| line.starts_with("State:\tZ"));
        assert!(!status.is_empty() && !dead, "{} has ended: {status}", self.name);
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("the workload's first process");
        let outcome = self.wait(Duration::from_secs(60)).ok();
        assert_eq!(outcome.stdout.lines().last(), Some("OK"), "{outcome:?}");
    }

    /// Waits for the end of `snapd run`.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> Outcome {
        self.run.take().expect("run in the foreground").wait(limit)
    }

    /// Kills the keeper; the workload has to run on without it.
    pub fn kill_keeper(&mut self) {
        if let Some(run) = self.run.take() {
            run.kill();
        }
    }
}
