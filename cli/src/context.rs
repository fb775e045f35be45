//! What every command has: the state directory, and how to speak.
use std::path::{Path, PathBuf};

use supervisor::home::Home;

use crate::args::Global;
use crate::diagnosis;
use crate::exit::Failure;

/// Global options, and what follows from them.
#[derive(Debug)]
pub(crate) struct Context {
    dir: Option<PathBuf>,
    /// `--json`.
    pub(crate) json: bool,
    /// `--quiet`.
    pub(crate) quiet: bool,
}

impl Context {
    /// Begins to speak as asked.
    pub(crate) fn new(global: Global) -> Self {
        let level = match (global.quiet, global.verbose) {
            (true, _) => "error",
            (_, 0) => "warn",
            (_, 1) => "info",
            (_, _) => "debug",
        };
        diagnosis::begin(level);
        Self { dir: global.dir, json: global.json, quiet: global.quiet }
    }

    /// The state directory, made if it is not there.
    pub(crate) fn home(&self) -> Result<Home, Failure> {
        Ok(Home::open(&self.dir())?)
    }

    /// Where it is.
    pub(crate) fn dir(&self) -> PathBuf {
        let given = self.dir.clone().filter(|dir| !dir.as_os_str().is_empty());
        given.unwrap_or_else(|| {
            let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
            let (state, home) = (variable("XDG_STATE_HOME"), variable("HOME"));
            let root = nix::unistd::geteuid().is_root();
            Home::default_dir(root, state.as_deref().map(Path::new), home.as_deref().map(Path::new))
        })
    }

    /// One line for a person, unless nobody wants to hear it.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            crate::output::complain(&format!("note: {text}\n"));
        }
    }
}
