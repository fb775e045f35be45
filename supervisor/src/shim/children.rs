//! The shim's children: the first process, workers, and orphans; who ended how.
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;

use engine::spawn::{Credentials, Program, SpawnError, spawn};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgid};

use super::streams::Streams;
use crate::definition::Definition;
use crate::error::Sort;
use crate::error::{Error, Result};
use crate::wire::{Ended, Fault};

/// What the kernel told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// The first process has ended.
    FirstEnded(Ended),
    /// It was stopped by this signal; 0: it goes on.
    FirstStopped(i32),
    /// A worker has ended.
    WorkerEnded(Pid, Ended),
}

#[derive(Default)]
pub(super) struct Children {
    pub(super) first: Option<Pid>,
    pub(super) ended: Option<Ended>,
    pub(super) worker: Option<Pid>,
    /// Who ended while a worker was bringing the tree back: the first process may be among them.
    strays: BTreeMap<Pid, Ended>,
    private: bool,
}

impl Children {
    pub(super) fn new(private: bool) -> Self {
        Self { private, ..Self::default() }
    }

    /// Starts the workload's first process.
    pub(super) fn start(&mut self, what: &Definition, streams: &Streams) -> Result<Pid> {
        let terminal = streams.terminal.as_ref().and_then(|terminal| terminal.slave().ok());
        let text = |bytes: &Vec<u8>| CString::new(bytes.clone()).ok();
        let program = Program {
            paths: what.candidates().iter().filter_map(text).collect(),
            args: what.command.iter().filter_map(text).collect(),
            env: what.env.iter().filter_map(text).collect(),
            cwd: text(&what.cwd).filter(|cwd| !cwd.is_empty()),
            umask: Some(what.umask),
            fds: streams.given().zip(0..3).collect(),
            pid: None,
            own_group: true,
            foreground_of: terminal.as_ref().map(std::os::fd::AsFd::as_fd),
            credentials: what.user.as_ref().map(|user| Credentials {
                user: user.user,
                group: user.group,
                groups: user.groups.clone(),
            }),
        };
        let pid = spawn(&program).map_err(|error| cannot_start(what, error))?;
        self.first = Some(pid);
        Ok(pid)
    }

    /// The tree was brought back; this is its first process. Says if it has ended already.
    pub(super) fn adopt(&mut self, first: Pid) -> Option<Ended> {
        self.first = Some(first);
        self.ended = self.strays.remove(&first);
        self.ended
    }

    /// A worker starts: until it ends, remembers everyone.
    pub(super) fn work(&mut self, worker: Pid) {
        self.worker = Some(worker);
        self.strays.clear();
    }

    /// Reaps all who have ended.
    pub(super) fn reap(&mut self) -> Vec<News> {
        let mut all = Vec::new();
        let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED | WaitPidFlag::WCONTINUED;
        loop {
            match waitpid(None, Some(flags)) {
                Ok(WaitStatus::StillAlive) | Err(_) => return all,
                Ok(status) => all.extend(self.heard(status)),
            }
        }
    }

    fn heard(&mut self, status: WaitStatus) -> Option<News> {
        let is_first = status.pid().is_some() && status.pid() == self.first;
        let (pid, ended) = match status {
            WaitStatus::Exited(pid, status) => (pid, Ended { status, signal: 0 }),
            WaitStatus::Signaled(pid, signal, _) => {
                (pid, Ended { status: 0, signal: signal as i32 })
            }
            WaitStatus::Stopped(_, by) if is_first => return Some(News::FirstStopped(by as i32)),
            WaitStatus::Continued(_) if is_first => return Some(News::FirstStopped(0)),
            _ => return None,
        };
        if self.worker == Some(pid) {
            self.worker = None;
            return Some(News::WorkerEnded(pid, ended));
        }
        if is_first {
            self.ended = Some(ended);
            return Some(News::FirstEnded(ended));
        }
        if self.worker.is_some() {
            self.strays.insert(pid, ended);
        }
        None
    }

    /// Sends a signal to the group of the first process.
    pub(super) fn signal_group(&self, signal: Option<Signal>) {
        if let Some(group) = self.first.and_then(|first| getpgid(Some(first)).ok()) {
            let _ = kill(Pid::from_raw(-group.as_raw()), signal);
        }
    }

    /// To everyone but us, workers included: the workload has ended.
    pub(super) fn signal_all(&self, signal: Signal) {
        if self.private {
            let _ = kill(Pid::from_raw(-1), signal);
            return;
        }
        for pid in descendants(nix::unistd::getpid()) {
            let _ = kill(pid, signal);
        }
    }

    /// Whether nobody is left.
    pub(super) fn all_gone(&self) -> bool {
        let flags = WaitPidFlag::WNOHANG | WaitPidFlag::__WALL;
        nix::sys::wait::waitid(
            nix::sys::wait::Id::All,
            flags | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT,
        ) == Err(Errno::ECHILD)
    }
}

/// Children of children, from `/proc/PID/task/TID/children`.
fn descendants(of: Pid) -> Vec<Pid> {
    let mut all = Vec::new();
    let tasks = fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().flatten();
    for task in tasks {
        let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in list.split_whitespace().filter_map(|word| word.parse().ok()) {
            let child = Pid::from_raw(child);
            all.push(child);
            all.extend(descendants(child));
        }
    }
    all
}

/// In the words and with the exit codes of env(1) and nohup(1).
fn cannot_start(what: &Definition, error: SpawnError) -> Error {
    let command = what.command.first().map(|name| String::from_utf8_lossy(name).into_owned());
    let command = command.unwrap_or_default();
    let (sort, why) = match error {
        SpawnError::Execute(Errno::ENOENT) => (Sort::NotFound, "no such command".to_owned()),
        SpawnError::Execute(errno) => (Sort::NotExecutable, errno.desc().to_owned()),
        SpawnError::Prepare("chdir", errno) => {
            let cwd = String::from_utf8_lossy(&what.cwd).into_owned();
            (Sort::Failed, format!("its directory {cwd}: {}", errno.desc()))
        }
        SpawnError::Prepare(call, errno) => (Sort::Failed, format!("{call}: {}", errno.desc())),
        SpawnError::Clone(errno) => (Sort::Failed, format!("clone3: {}", errno.desc())),
    };
    let text = format!("cannot run {command:?}: {why}");
    Error::Told(Box::new(Fault::new(sort, text)))
}
