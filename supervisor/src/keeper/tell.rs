//! What is told: events to the catalog and to people, answers to commands.
use std::io::Write as _;

use super::link::outer_pid;
use super::shell::Shell;
use super::terminal::Terminal;
use crate::book::now_ms;
use crate::error::{Result, Sort};
use crate::machine::Kind;
use crate::options::{News, Up};
use crate::wire::{Fault, Info, Progress, from_keeper};

impl Shell {
    pub(super) fn record(&mut self, kind: Kind, seq: Option<u64>, reason: &str) {
        let name = &self.charge.definition.name;
        self.or_warn(self.book.happened(name, kind.word(), seq, reason));
        match kind {
            Kind::Started => self.entry.started_at_ms = now_ms(),
            Kind::Restored | Kind::RolledBack => {
                self.entry.restores += 1;
                self.entry.started_at_ms = now_ms();
            }
            Kind::Backoff => self.entry.restarts += 1,
            _ => {}
        }
        if matches!(kind, Kind::Started | Kind::Restored | Kind::RolledBack | Kind::Backoff) {
            self.put();
        }
        self.say(kind, seq, reason);
    }

    /// One line on standard error where a person should know; all of them with `--json`.
    fn say(&self, kind: Kind, seq: Option<u64>, reason: &str) {
        if !self.charge.foreground {
            return;
        }
        let name = &self.charge.definition.name;
        if self.charge.json {
            let at = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
            let word = kind.word();
            let event = serde_json::json!({
                "at": at, "name": name, "kind": word, "seq": seq, "reason": reason, "detail": null,
            });
            return self.print(&event.to_string());
        }
        let of = seq.map(|seq| format!("@{seq}")).unwrap_or_default();
        match kind {
            Kind::Restored if seq.is_none() => self.print(&format!("snapd: {name}: {reason}")),
            Kind::Restored => self.print(&format!("snapd: {name} was restored from {name}{of}")),
            Kind::RolledBack => {
                self.print(&format!("snapd: {name} was rolled back to {name}{of}"));
            }
            Kind::StartedFresh => {
                self.print(&format!("snapd: {name} was started afresh: {reason}"));
            }
            // That it cannot be started at all is said as the failure of the command.
            Kind::Failed | Kind::RestoreFailed if !self.was_up => {}
            Kind::Failed | Kind::RestoreFailed => {
                self.print(&format!("snapd: {name}{of}: {}: {reason}", kind.word()));
            }
            Kind::Note => self.print(&format!("snapd: {name}: {reason}")),
            _ => {}
        }
    }

    /// One line for whoever is at the terminal; that nobody reads it is no failure.
    fn print(&self, line: &str) {
        let raw = self.terminal.as_ref().is_some_and(Terminal::is_raw);
        let end = if raw { "\r\n" } else { "\n" };
        drop(std::io::stderr().write_all(format!("{line}{end}").as_bytes()));
    }

    /// What cannot be written down does not stop a workload, but is said.
    pub(super) fn or_warn(&self, done: Result<()>) {
        if let Err(error) = done {
            self.print(&format!("snapd: warning: {}", Fault::of(&error).text));
        }
    }

    /// It runs, for the first time: whoever started us waits for that.
    pub(super) fn tell_up(&mut self) {
        self.fault = None;
        if std::mem::replace(&mut self.was_up, true) {
            return;
        }
        let info = self.info();
        let (name, seq) = (self.charge.definition.name.clone(), self.charge.seq());
        self.charge.ear.tell(News::Up(Up { name, seq, pid: info.pid, took: self.clock.elapsed() }));
        if let Some(report) = self.charge.report.take() {
            report.up(info);
        }
    }

    pub(super) fn tell_progress(&self, it: Progress) {
        if !self.was_up {
            self.charge.ear.tell(News::Progress { done: it.done, of: it.of });
            drop(self.charge.report.as_ref().map(|report| report.progress(it)));
        }
        for reply in self.replies.values() {
            drop(reply.send(from_keeper::Of::Progress(it)));
        }
    }

    pub(super) fn answer(&mut self, id: u64, result: Result<Option<u64>, String>) {
        let Some(reply) = self.replies.remove(&id) else { return };
        drop(reply.send(match result {
            Ok(seq) => from_keeper::Of::Done(seq.unwrap_or(0)),
            Err(text) => {
                let told = self.why.take().filter(|fault| fault.text == text);
                let plain = Fault::new(Sort::Failed, text);
                from_keeper::Of::Refused(told.unwrap_or(plain))
            }
        }));
    }

    pub(super) fn info(&self) -> Info {
        let next = self.machine.next_due();
        let next = next.map(|due| due.saturating_sub(self.clock.now()).as_millis());
        let shim = self.link.as_ref().map(|link| link.shim);
        let pid = shim.and_then(|shim| outer_pid(shim, self.first));
        Info {
            state: self.machine.state().to_owned(),
            pid: pid.unwrap_or(0),
            inner_pid: self.first,
            next_in_ms: next.map(|next| u64::try_from(next).unwrap_or(u64::MAX)),
        }
    }
}
