//! Waiting for more of a file that only grows: `-f`.
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How soon news is noticed.
const PACE: Duration = Duration::from_millis(100);

/// A file, read from some position on.
#[derive(Debug)]
pub(super) struct Growing {
    path: PathBuf,
    position: u64,
    /// What came and was not yet taken.
    rest: Vec<u8>,
}

impl Growing {
    pub(super) fn new(path: &Path, position: u64) -> Self {
        Self { path: path.to_owned(), position, rest: Vec::new() }
    }

    /// Reads what has come since. A file that is not there is empty.
    pub(super) fn read(&mut self) -> io::Result<()> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(self.position))?;
        self.position += file.read_to_end(&mut self.rest)? as u64;
        Ok(())
    }

    /// What is there and not taken.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.rest
    }

    /// Takes the first `len` bytes.
    pub(super) fn take(&mut self, len: usize) -> Vec<u8> {
        let rest = self.rest.split_off(len.min(self.rest.len()));
        std::mem::replace(&mut self.rest, rest)
    }
}

/// Waits a moment.
pub(super) fn pause() {
    std::thread::sleep(PACE);
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    impl Growing {
        fn lines(&mut self) -> Vec<String> {
            let end = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let whole = self.take(end);
            String::from_utf8_lossy(&whole).lines().map(str::to_owned).collect()
        }
    }

    #[test]
    fn a_line_is_given_once_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut growing = Growing::new(&path, 0);
        growing.read().unwrap();
        assert!(growing.lines().is_empty());
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        growing.read().unwrap();
        assert_eq!(growing.lines(), ["one"]);
        file.write_all(b"o\n").unwrap();
        growing.read().unwrap();
        assert_eq!(growing.lines(), ["two"]);
    }
}
