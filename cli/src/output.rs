//! Standard output and error. A reader who goes away (`snapd ls | head -0`) ends the command in
//! silence, as it does every other; a disk that is full does not.
use std::io::{self, ErrorKind, Write};

use serde::Serialize;

use crate::exit::Failure;

/// Writes a result.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// Likewise, what need not be text.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(lost)
}

/// Writes one JSON document, or one line of a stream of them.
pub(crate) fn print_json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(io::Error::from).map_err(lost)?;
    print(&(text + "\n"))
}

/// Tells a person. That nobody hears it is no failure.
pub(crate) fn complain(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

fn lost(error: io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::NobodyReads,
        _ => Failure::Output(error),
    }
}
