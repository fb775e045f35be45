//! `snapd logs`.
use clap::Args;
use supervisor::book::Book;
use supervisor::client;
use supervisor::log::reader::{Line, apply};
use supervisor::log::{Record, Source};

use super::follow::{Growing, pause};
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::json;
use crate::output::{complain, print_bytes, print_json};
use crate::render::units::{at_ms, rfc3339};
use crate::values;

/// Prints what a workload has written
///
/// After a restore the log goes back with the workload, so that it reads like one undisturbed run.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  snapd logs train
  snapd logs train -n 20 -f    the last 20 lines, and what comes
  snapd logs train --all       with what restores have undone")]
pub(crate) struct Logs {
    /// The workload
    #[arg(value_parser = values::name)]
    name: String,
    /// Goes on with what it writes from now on
    #[arg(short, long)]
    follow: bool,
    /// The last lines only
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<usize>,
    /// Shows what was undone too
    #[arg(long)]
    all: bool,
}

/// A line of output, or what there is of one.
struct Written {
    record: Record,
    undone: bool,
}

impl Logs {
    pub(super) fn execute(self, context: &Context) -> Outcome {
        let home = context.home()?;
        Book::open(&home)?.entry(&self.name)?;
        let path = client::log_path(&home, &self.name);
        let start = supervisor::log::start(&path).map_err(unreadable)?;
        let mut file = Growing::new(&path, start);
        file.read().map_err(unreadable)?;
        let all = apply(file.bytes(), start);
        let end = all.last().map_or(start, end_of);
        file.take(usize::try_from(end - start).unwrap_or(usize::MAX));
        let shown = all.into_iter().filter(|line| line.record.source.is_output());
        let shown = shown.filter(|line| self.all || !line.undone);
        let lines =
            into_lines(shown.map(|line| Written { record: line.record, undone: line.undone }));
        let skip = self.lines.map_or(0, |count| lines.len().saturating_sub(count));
        lines.iter().skip(skip).try_for_each(|line| self.show(context, line))?;
        if !self.follow {
            return Ok(0);
        }
        loop {
            pause();
            file.read().map_err(unreadable)?;
            self.go_on(context, &mut file)?;
        }
    }

    /// Shows what has come.
    fn go_on(&self, context: &Context, file: &mut Growing) -> Result<(), Failure> {
        let mut come = Vec::new();
        while let Some((record, len)) = Record::decode(file.bytes()) {
            file.take(len);
            if record.undoes().is_some() && !context.json {
                complain("snapd: what follows comes after a restore\n");
            }
            if record.source.is_output() {
                come.push(Written { record, undone: false });
            }
        }
        into_lines(come.into_iter()).iter().try_for_each(|line| self.show(context, line))
    }

    fn show(&self, context: &Context, line: &Written) -> Result<(), Failure> {
        if !context.json {
            return print_bytes(&line.record.bytes);
        }
        let stream = match line.record.source {
            Source::Error => "stderr",
            Source::Terminal => "terminal",
            _ => "stdout",
        };
        let text = String::from_utf8_lossy(&line.record.bytes);
        print_json(&json::LogLine {
            at: rfc3339(at_ms(line.record.time / 1_000_000)),
            name: self.name.clone(),
            stream,
            text: text.trim_end_matches(['\n', '\r']).to_owned(),
            undone: line.undone,
        })
    }
}

fn end_of(line: &Line) -> u64 {
    line.position + line.record.encode().len() as u64
}

/// Records are what came in one read; people want lines. What belongs to one line of one stream is
/// put together, under the time that it began at.
fn into_lines(records: impl Iterator<Item = Written>) -> Vec<Written> {
    let mut lines: Vec<Written> = Vec::new();
    for Written { record, undone } in records {
        for piece in record.bytes.split_inclusive(|byte| *byte == b'\n') {
            match lines.last_mut() {
                Some(last)
                    if !last.record.bytes.ends_with(b"\n")
                        && last.record.source == record.source
                        && last.undone == undone =>
                {
                    last.record.bytes.extend_from_slice(piece);
                }
                _ => {
                    let (source, time) = (record.source, record.time);
                    let record = Record { source, time, bytes: piece.to_vec() };
                    lines.push(Written { record, undone });
                }
            }
        }
    }
    lines
}

fn unreadable(source: std::io::Error) -> Failure {
    supervisor::Error::Io { what: "read the log".into(), source }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(source: Source, bytes: &[u8]) -> Written {
        Written { record: Record { source, time: 0, bytes: bytes.to_vec() }, undone: false }
    }

    #[test]
    fn records_become_lines() {
        let records = [
            written(Source::Output, b"one\ntw"),
            written(Source::Output, b"o\nth"),
            written(Source::Error, b"oops\n"),
            written(Source::Output, b"ree"),
        ];
        let lines = into_lines(records.into_iter());
        let text: Vec<_> = lines.iter().map(|line| line.record.bytes.as_slice()).collect();
        assert_eq!(text, [&b"one\n"[..], b"two\n", b"th", b"oops\n", b"ree"]);
    }
}
