//! `snapd undump`.
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use supervisor::bridge;

use super::run::options::{Files, Tcp};
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::interrupt;
use crate::json;
use crate::output::print_json;
use crate::progress::Progress;

/// Brings back a process tree that `snapd dump` saved
///
/// With the same PIDs, which must be free. Everything is checked before anything is started. Without
/// --detach, waits for the tree's first process and passes on its exit status.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  snapd undump --images /tmp/image
  snapd undump --images /tmp/image --detach --pidfile /run/it.pid")]
pub(crate) struct Undump {
    /// The directory it was saved into
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Returns once the tree runs
    #[arg(short, long)]
    detach: bool,
    /// Writes the PID of the tree's first process into this file
    #[arg(long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Goes on although an executable or library is no longer the same
    #[arg(long)]
    accept_changed: bool,
    /// Whether files go back to what they held
    #[arg(long, value_enum, value_name = "HOW", default_value = "rollback")]
    files: Files,
    /// What becomes of established TCP connections
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    tcp: Tcp,
    /// Compares all that was brought back with the image before it runs on
    #[arg(long)]
    verify: bool,
    /// Uses an image although it belongs to another user, or others can change it
    #[arg(long)]
    trust: bool,
    /// Gives the tree this terminal in place of the one it had
    #[arg(long, short = 'j')]
    shell_job: bool,
}

impl Undump {
    pub(super) fn execute(self, context: &Context) -> Outcome {
        let began = Instant::now();
        let how = bridge::Undump {
            images: self.images.clone(),
            accept_changed: self.accept_changed,
            keep_files: self.files == Files::Keep,
            close_tcp: self.tcp.closes()?,
            detach: self.detach,
            trust: self.trust,
            shell_job: self.shell_job,
            verify: self.verify,
        };
        let mut bar = Progress::new(context, "restoring");
        let brought = bridge::undump(&how, &mut |news| bar.tell(news.done, news.of))?;
        drop(bar);
        let took_ms = began.elapsed().as_secs_f64() * 1_000.0;
        let pid = brought.first;
        if let Some(path) = &self.pidfile {
            write_pid(path, pid)?;
        }
        if context.json {
            print_json(&json::Restored {
                name: None,
                seq: None,
                pid,
                took_ms,
                notes: brought.notes,
            })?;
        } else {
            brought.notes.iter().for_each(|note| context.note(note));
        }
        if self.detach {
            return Ok(0);
        }
        interrupt::pass_on(pid)?;
        Ok(bridge::wait_for(pid)?)
    }
}

/// The tree runs already: that its number cannot be written is said, with the number.
fn write_pid(path: &std::path::Path, pid: i32) -> Result<(), Failure> {
    std::fs::write(path, format!("{pid}\n")).map_err(|error| Failure::Refused {
        text: format!("process {pid} runs, but {} cannot be written: {error}", path.display()),
        hint: None,
        sort: supervisor::error::Sort::Failed,
    })
}
