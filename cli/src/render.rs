//! How things look to a person: tables, sizes, durations, times, colours.
pub(crate) mod table;
pub(crate) mod units;

use std::io::IsTerminal;

pub(crate) use self::table::{Align, Table};

/// Colours, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style(bool);

impl Style {
    /// For standard output.
    pub(crate) fn of_stdout() -> Self {
        Self(std::io::stdout().is_terminal() && wanted())
    }

    /// For standard error.
    pub(crate) fn of_stderr() -> Self {
        Self(std::io::stderr().is_terminal() && wanted())
    }

    /// Without colours.
    pub(crate) fn plain() -> Self {
        Self(false)
    }

    /// Whether there are any.
    pub(crate) fn colours(self) -> bool {
        self.0
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.paint("31;1", text)
    }

    /// A state's word, in the colour that tells at a glance.
    pub(crate) fn state(self, word: &str) -> String {
        match word.trim_end() {
            "running" | "verified" | "yes" => self.paint("32", word),
            "failed" | "damaged" | "backoff" | "no" => self.paint("31", word),
            "starting" | "restoring" | "checkpointing" | "paused" => self.paint("33", word),
            "finished" | "stopped" => self.paint("2", word),
            _ => word.to_owned(),
        }
    }
}

/// <https://no-color.org>: any value but the empty one; and terminals that cannot.
fn wanted() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
