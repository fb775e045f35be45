//! What is told for those who look for a fault, or for time.
//!
//! `SNAPD_LOG=engine=trace` tells what each step took. Who keeps a workload, and takes snapshots of it, has
//! nobody to hear it: with `SNAPD_LOG_FILE` all of them write to that file, from `snapd run` on.
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::render::Style;

/// Begins to tell: what is asked for, or `level` and above on stderr.
pub(crate) fn begin(level: &str) {
    let (writer, colours) = file().map_or_else(
        || (BoxMakeWriter::new(std::io::stderr), Style::of_stderr().colours()),
        |file| (BoxMakeWriter::new(Arc::new(file)), false),
    );
    let told = tracing_subscriber::fmt().with_writer(writer).with_target(false).with_ansi(colours);
    // Only the first can be had; there is no other.
    let _ = match EnvFilter::try_from_env("SNAPD_LOG") {
        Ok(filter) => told.with_env_filter(filter).with_span_events(FmtSpan::CLOSE).try_init(),
        Err(_) => told.with_env_filter(EnvFilter::new(level)).without_time().try_init(),
    };
}

/// Likewise, for those whom nobody hears otherwise.
pub(crate) fn begin_unheard() {
    if file().is_some() {
        begin("warn");
    }
}

fn file() -> Option<File> {
    let path = std::env::var_os("SNAPD_LOG_FILE").filter(|path| !path.is_empty())?;
    File::options().create(true).append(true).mode(0o600).open(path).ok()
}
