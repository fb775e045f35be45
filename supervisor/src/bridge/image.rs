//! The engine's ports on the store's streams: `space/N`, `object/N/E`, `file/N`.
use std::io;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use engine::image::{Contents, ImageSink, ImageSource, Origin, Run, Scattered, decode, encode};
use engine::inventory::Inventory;
use store::{Reader, Writer};

use super::progress::{Meter, Tell};

/// The store's name for a stream.
fn name(of: Contents) -> String {
    match of {
        Contents::Space(id) => format!("space/{id}"),
        Contents::Object(id, end) => format!("object/{id}/{end}"),
        Contents::File(id) => format!("file/{id}"),
    }
}

/// Where a checkpoint goes.
pub(super) struct Sink<'a> {
    writer: Writer,
    kept: Vec<u8>,
    changed_bytes: u64,
    unchanged_bytes: u64,
    meter: Meter<'a>,
}

impl<'a> Sink<'a> {
    pub(super) fn new(writer: Writer, tell: Tell<'a>) -> Self {
        let (changed_bytes, unchanged_bytes) = (0, 0);
        Self { writer, kept: Vec::new(), changed_bytes, unchanged_bytes, meter: Meter::new(tell) }
    }

    /// About so many bytes will come.
    pub(super) fn about(&mut self, bytes: u64) {
        self.meter.about(bytes);
    }

    pub(super) fn definition(&mut self, bytes: &[u8]) {
        self.kept = bytes.to_vec();
    }

    /// How much memory it was.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.changed_bytes + self.unchanged_bytes
    }

    /// And how much of it had to be looked at, because it may have changed.
    pub(super) fn changed_bytes(&self) -> u64 {
        self.changed_bytes
    }

    pub(super) fn into_writer(mut self) -> store::Result<Writer> {
        self.writer.definition(&self.kept)?;
        Ok(self.writer)
    }
}

impl ImageSink for Sink<'_> {
    fn inventory(&mut self, inventory: &Inventory) -> io::Result<()> {
        Ok(self.writer.record(&encode(inventory))?)
    }

    fn bytes(&mut self, of: Contents, at: u64, bytes: &[u8]) -> io::Result<()> {
        if matches!(of, Contents::Space(_)) {
            self.changed_bytes += bytes.len() as u64;
        }
        self.meter.passed(bytes.len());
        Ok(self.writer.stream(&name(of), at, bytes)?)
    }

    fn runs(&mut self, of: Contents, runs: &[Run], origin: &Origin) -> io::Result<()> {
        let bytes: usize = runs.iter().map(|(_, len)| len).sum();
        if matches!(of, Contents::Space(_)) {
            self.changed_bytes += bytes as u64;
        }
        self.meter.passed(bytes);
        Ok(self.writer.runs(&name(of), runs, origin)?)
    }

    fn settle(&mut self) -> io::Result<()> {
        Ok(self.writer.settle()?)
    }

    fn restart(&mut self, of: Contents) -> io::Result<()> {
        Ok(self.writer.restart(&name(of))?)
    }

    fn unchanged(&mut self, of: Contents, range: Range<u64>) -> io::Result<()> {
        if matches!(of, Contents::Space(_)) {
            self.unchanged_bytes += range.end - range.start;
            self.meter.passed(usize::try_from(range.end - range.start).unwrap_or(usize::MAX));
        }
        Ok(self.writer.unchanged(&name(of), range)?)
    }
}

/// Where a restore comes from.
pub(super) struct Source<'a> {
    reader: Reader,
    meter: Mutex<Meter<'a>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(reader: Reader, tell: Tell<'a>) -> Self {
        let mut meter = Meter::new(tell);
        meter.about(reader.snapshot().meta.memory_bytes);
        Self { reader, meter: Mutex::new(meter) }
    }
}

impl Source<'_> {
    /// Finds damage before anything depends on there being none.
    pub(super) fn check(&self) -> store::Result<()> {
        self.reader.check()
    }

    fn passed(&self, bytes: &[u8]) {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner).passed(bytes.len());
    }
}

/// The records of a snapshot alone.
pub(super) fn inventory(reader: &Reader) -> io::Result<Inventory> {
    let damaged = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    decode(&reader.record()?).map_err(damaged)
}

impl ImageSource for Source<'_> {
    fn inventory(&self) -> io::Result<Inventory> {
        inventory(&self.reader)
    }

    fn bytes(
        &self,
        of: Contents,
        visit: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        Ok(self.reader.stream(&name(of), &mut |at, bytes| {
            self.passed(bytes);
            visit(at, bytes)
        })?)
    }

    fn scatter(&self, of: Contents, visit: Scattered<'_>) -> io::Result<()> {
        Ok(self.reader.scatter(&name(of), &|at, bytes| {
            self.passed(bytes);
            visit(at, bytes)
        })?)
    }
}
