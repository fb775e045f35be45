//! A bar for work that takes more than a second, on a terminal only.
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use supervisor::options::{Ear, News};

use crate::context::Context;

/// Work shorter than this needs no bar.
const SHORT: Duration = Duration::from_secs(1);
const KNOWN: &str = "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}";
const UNKNOWN: &str = "{msg} {spinner} {binary_bytes} {binary_bytes_per_sec}";

/// How far something is.
#[derive(Debug)]
pub(crate) struct Progress {
    verb: &'static str,
    began: Instant,
    wanted: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Of what `verb` says: `saving`.
    pub(crate) fn new(context: &Context, verb: &'static str) -> Self {
        let wanted = std::io::stderr().is_terminal() && !context.quiet && !context.json;
        Self { verb, began: now(), wanted, bar: None }
    }

    /// So many bytes are done, of so many; 0: not known.
    pub(crate) fn tell(&mut self, done: u64, of: u64) {
        if !self.wanted || self.began.elapsed() < SHORT {
            return;
        }
        let length = (of != 0).then_some(of);
        let verb = self.verb;
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
            bar.with_style(style(length)).with_message(verb)
        });
        if bar.length() != length {
            bar.set_style(style(length));
            length.into_iter().for_each(|length| bar.set_length(length));
        }
        bar.set_position(done);
    }
}

/// Shows what a keeper tells of its progress, and passes on all other news.
pub(crate) fn ear(
    context: &Context,
    verb: &'static str,
    other: impl Fn(News) + Send + Sync + 'static,
) -> Ear {
    let progress = Mutex::new(Some(Progress::new(context, verb)));
    Ear::new(move |news| {
        let Ok(mut progress) = progress.lock() else { return };
        match news {
            News::Progress { done, of } => drop(progress.as_mut().map(|bar| bar.tell(done, of))),
            News::Up(up) => {
                *progress = None; // The terminal is the workload's from here on.
                other(News::Up(up));
            }
        }
    })
}

/// A bar where it is known how much it will be, else a sign of life.
fn style(length: Option<u64>) -> ProgressStyle {
    let template = if length.is_some() { KNOWN } else { UNKNOWN };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn now() -> Instant {
    Instant::now()
}
