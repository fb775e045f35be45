//! What is known of a workload before somebody tries to start it: a start that comes to nothing leaves
//! it as it was, and of a name that nobody knew, nothing.
use std::fs;

use super::shell::RECOVERY;
use crate::book::{Book, Entry};
use crate::error::{Error, Result};
use crate::home::Home;

pub(super) struct Before {
    pub(super) entry: Option<Entry>,
    /// Where the current line ends.
    newest: Option<u64>,
    recovery: Option<String>,
}

impl Before {
    pub(super) fn of(book: &Book, name: &str) -> Result<Self> {
        let entry = match book.entry(name) {
            Ok(entry) => Some(entry),
            Err(Error::Missing(_)) => None,
            Err(error) => return Err(error),
        };
        let (newest, recovery) = (book.line(name)?.last().copied(), book.fact(name, RECOVERY)?);
        Ok(Self { entry, newest, recovery })
    }

    /// Forgets the try; of a workload that was known, its events tell of it.
    pub(super) fn put_back(self, home: &Home, book: &Book, name: &str) -> Result<()> {
        let Some(entry) = self.entry else {
            for suffix in ["log", "input", "input-end", "names"] {
                let _ = fs::remove_file(home.logs(name, suffix)); // It need not be there.
            }
            return book.forget(name);
        };
        book.rewind(name, self.newest)?;
        book.set_fact(name, RECOVERY, self.recovery.as_deref())?;
        book.put(&entry)
    }
}
