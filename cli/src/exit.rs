//! Failures, as a person and a script are told of them: one sentence, its causes, a hint where there
//! is one, and the exit code. The only place that knows them.
use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use supervisor::error::Sort;
use supervisor::wire::{Fault, Obstacle};

use crate::context::Context;
use crate::json;
use crate::output::{complain, print_json};
use crate::render::Style;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The supervisor's, the store's or the engine's.
    #[error(transparent)]
    Supervisor(#[from] supervisor::Error),
    /// A sentence with a hint at what to do instead.
    #[error("{text}")]
    Refused {
        /// What is refused, and why.
        text: String,
        /// What to do.
        hint: Option<String>,
        /// For the exit code.
        sort: Sort,
    },
    /// What was typed means nothing, or not yet.
    #[error("{0}")]
    Usage(String),
    /// `^C` or SIGTERM came first.
    #[error("interrupted")]
    Interrupted,
    /// Standard output is a pipe that nobody reads any more.
    #[error("nobody reads standard output")]
    NobodyReads,
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

/// What a command gives: an exit code, usually 0.
pub(crate) type Outcome = Result<i32, Failure>;

impl Failure {
    /// A refusal with a hint.
    pub(crate) fn refused(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused { text: text.into(), hint: Some(hint.into()), sort: Sort::Failed }
    }

    /// What scripts see.
    fn code(&self) -> i32 {
        match self {
            Self::Supervisor(error) => code_of(error.sort()),
            Self::Refused { sort, .. } => code_of(*sort),
            Self::Usage(_) => 2,
            Self::Interrupted => 130,
            Self::NobodyReads => 0,
            Self::Output(_) => 1,
        }
    }
}

fn code_of(sort: Sort) -> i32 {
    match sort {
        Sort::Failed => 1,
        Sort::Missing => 3,
        Sort::Damaged => 4,
        Sort::Busy => 5,
        Sort::NotExecutable => 126,
        Sort::NotFound => 127,
    }
}

/// An exit code as the system takes it.
pub(crate) fn code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1))
}

/// Tells of a failure; with `--json` its obstacles are on standard output too.
pub(crate) fn tell(failure: &Failure, context: Option<&Context>) -> ExitCode {
    if !matches!(failure, Failure::NobodyReads) {
        let fault = fault(failure);
        if context.is_some_and(|context| context.json) && !fault.obstacles.is_empty() {
            let _ = print_json(&json::Refusal::of(&fault));
        }
        complain(&story(failure, &fault, Style::of_stderr()));
    }
    code(failure.code())
}

/// Ends the process at once, whatever other threads are doing.
pub(crate) fn leave(failure: &Failure) -> ! {
    tell(failure, None);
    std::process::exit(failure.code())
}

/// The failure with its causes and obstacles.
fn fault(failure: &Failure) -> Fault {
    if let Failure::Supervisor(error) = failure {
        return Fault::of(error);
    }
    let mut text = failure.to_string();
    let mut cause = std::error::Error::source(failure);
    while let Some(next) = cause {
        let _ = write!(text, ": {next}");
        cause = next.source();
    }
    Fault::new(Sort::Failed, text)
}

fn story(failure: &Failure, fault: &Fault, style: Style) -> String {
    let mut story = format!("{} {}\n", style.red("error:"), fault.text);
    story += &obstacles(&fault.obstacles, style);
    if let Some(hint) = hint(failure, fault) {
        let _ = writeln!(story, "{} {hint}", style.bold("hint:"));
    }
    story
}

/// What is in the way: process, object, reason, code and remedy of each.
pub(crate) fn obstacles(all: &[Obstacle], style: Style) -> String {
    let mut story = String::new();
    for found in all {
        let whose = match (found.pid, found.inner_pid) {
            (0, 0) => String::new(),
            (0, inner) => format!(" of process {inner} (as it sees itself)"),
            (pid, inner) if pid == inner => format!(" of process {pid}"),
            (pid, inner) => format!(" of process {pid} ({inner} as it sees itself)"),
        };
        let _ = writeln!(story, "  {}{whose}: {} [{}]", found.object, found.reason, found.code);
        let _ = writeln!(story, "    {} {}", style.dim("remedy:"), found.remedy);
    }
    story
}

/// What a person may want to do next.
fn hint(failure: &Failure, fault: &Fault) -> Option<String> {
    if let Failure::Refused { hint, .. } = failure {
        return hint.clone();
    }
    let Failure::Supervisor(error) = failure else { return None };
    let forbidden =
        ["EPERM", "EACCES", "Permission denied"].iter().any(|errno| fault.text.contains(errno));
    if forbidden && !nix::unistd::geteuid().is_root() {
        return Some("an ordinary user may not do all that this takes: run it as root".into());
    }
    let told = |code: &str| fault.obstacles.iter().any(|found| found.code == code);
    if told("file:changed") {
        let hint = "--accept-changed goes on with the files as they are now";
        return Some(hint.into());
    }
    if let supervisor::Error::Store(store::Error::Foreign { .. } | store::Error::Exposed { .. }) =
        error
    {
        let hint = "chown and chmod go-w make it yours alone; `undump --trust` uses it as it is";
        return Some(hint.into());
    }
    if let supervisor::Error::Store(store::Error::Catalog { path, .. }) = error
        && error.sort() == Sort::Damaged
    {
        let path = path.display();
        let hint = format!("no snapshot needs {path}: moved away, it is made anew, without events");
        return Some(hint);
    }
    match error.sort() {
        Sort::Busy if fault.obstacles.is_empty() => Some("`snapd ls` shows what runs".into()),
        Sort::Missing if fault.text.contains("workload") => {
            Some("`snapd ls` lists all workloads".into())
        }
        Sort::Missing if fault.text.contains("snapshot") => {
            Some("`snapd snapshots` lists all snapshots".into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str) -> Failure {
        let found = Obstacle {
            code: code.into(),
            inner_pid: 7,
            pid: 4242,
            object: "fd 3 (anon_inode:[io_uring])".into(),
            reason: "it has requests in flight".into(),
            remedy: "let them end".into(),
        };
        let fault =
            Fault { sort: Sort::Failed.into(), text: "refused".into(), obstacles: vec![found] };
        Failure::Supervisor(supervisor::Error::Told(Box::new(fault)))
    }

    #[test]
    fn an_obstacle_is_told_with_process_object_reason_and_remedy() {
        let failure = refused("io_uring:in-flight");
        let story = story(&failure, &fault(&failure), Style::plain());
        let expected = "error: refused\n  fd 3 (anon_inode:[io_uring]) of process 4242 (7 as it sees itself): \
                        it has requests in flight [io_uring:in-flight]\n    remedy: let them end\n";
        assert_eq!(story, expected);
    }

    #[test]
    fn a_cause_is_told_once() {
        let source = io::Error::from(io::ErrorKind::StorageFull);
        let failure = Failure::Output(source);
        assert_eq!(fault(&failure).text, "cannot write to standard output: no storage space");
        assert_eq!(failure.code(), 1);
    }

    #[test]
    fn every_failure_has_its_code() {
        use supervisor::Error as E;
        let code = |error: E| Failure::from(error).code();
        assert_eq!(code(E::Missing("workload \"a\"".into())), 3);
        assert_eq!(code(E::Busy("a".into())), 5);
        assert_eq!(code(E::Damaged("a".into())), 4);
        assert_eq!(code(E::Refused("a".into())), 1);
        assert_eq!(Failure::Usage(String::new()).code(), 2);
        assert_eq!(Failure::Interrupted.code(), 130);
        assert_eq!(Failure::NobodyReads.code(), 0);
    }
}
