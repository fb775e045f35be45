//! `snapd dump`.
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use supervisor::{bridge, query};

use super::run::options::{Files, Tcp};
use crate::context::Context;
use crate::exit::Outcome;
use crate::interrupt;
use crate::json;
use crate::output::{print, print_json};
use crate::progress::Progress;
use crate::render::units::{millis, size};
use crate::values;

/// Saves a running process tree into a directory
///
/// The process, all its descendants and the files they are writing: one image, without a name, a
/// catalog or a supervisor. The tree is killed once the image is durable; `snapd undump` brings it
/// back, with the same PIDs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  snapd dump --pid 4242 --images /tmp/image
  snapd dump --pid 4242 --images /tmp/image --leave-running")]
pub(crate) struct Dump {
    /// The root of the tree
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..), allow_negative_numbers = true)]
    pid: i32,
    /// The directory to save it into, made if it is not there
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Lets the tree run on
    #[arg(long)]
    leave_running: bool,
    /// Does not store again what this image has; a relative path is tried inside --images first
    #[arg(long, value_name = "DIR")]
    parent: Option<PathBuf>,
    /// Whether the files that the tree is writing are part of the image
    #[arg(long, value_enum, value_name = "HOW", default_value = "rollback")]
    files: Files,
    /// What becomes of established TCP connections
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    tcp: Tcp,
    /// How long it may take until all of the tree stands still; else the dump is given up
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = values::interval, allow_hyphen_values = true)]
    freeze_timeout: Duration,
    /// Leaves out the terminal that it has from its shell; `undump --shell-job` gives it another
    #[arg(long, short = 'j')]
    shell_job: bool,
}

impl Dump {
    pub(super) fn execute(self, context: &Context) -> Outcome {
        interrupt::heed()?;
        let how = bridge::Dump {
            pid: self.pid,
            images: self.images.clone(),
            leave_running: self.leave_running,
            keep_files: self.files == Files::Keep,
            close_tcp: self.tcp.closes()?,
            freeze_timeout: self.freeze_timeout,
            parent: self.parent,
            shell_job: self.shell_job,
        };
        let mut bar = Progress::new(context, "saving");
        let taken = bridge::dump(&how, &mut |news| bar.tell(news.done, news.of))?;
        drop(bar);
        let image = query::image(&self.images)?;
        if context.json {
            print_json(&json::Snapshot::of(&image))?;
        } else if !context.quiet {
            let (held, images) = (size(image.meta.memory_bytes), self.images.display());
            let (pause, took) = (millis(taken.pause_ms), millis(taken.took_ms));
            print(&format!("{images}: {held} of memory, paused for {pause}, took {took}\n"))?;
        }
        Ok(0)
    }
}
