//! The engine's ports on the store's streams: `space/N`, `object/N/E`, `file/N`.
use std::io;
use std::ops::Range;

use engine::image::{Contents, ImageSink, ImageSource, decode, encode};
use engine::inventory::Inventory;
use store::{Reader, Writer};

/// The store's name for a stream.
fn name(of: Contents) -> String {
    match of {
        Contents::Space(id) => format!("space/{id}"),
        Contents::Object(id, end) => format!("object/{id}/{end}"),
        Contents::File(id) => format!("file/{id}"),
    }
}

/// Where a checkpoint goes.
pub(super) struct Sink {
    writer: Writer,
    kept: Vec<u8>,
    space_bytes: u64,
}

impl Sink {
    pub(super) fn new(writer: Writer) -> Self {
        Self { writer, kept: Vec::new(), space_bytes: 0 }
    }

    pub(super) fn definition(&mut self, bytes: &[u8]) {
        self.kept = bytes.to_vec();
    }

    /// How much memory it was.
    pub(super) fn space_bytes(&self) -> u64 {
        self.space_bytes
    }

    pub(super) fn into_writer(mut self) -> store::Result<Writer> {
        self.writer.definition(&self.kept)?;
        Ok(self.writer)
    }
}

impl ImageSink for Sink {
    fn inventory(&mut self, inventory: &Inventory) -> io::Result<()> {
        Ok(self.writer.record(&encode(inventory))?)
    }

    fn bytes(&mut self, of: Contents, at: u64, bytes: &[u8]) -> io::Result<()> {
        if matches!(of, Contents::Space(_)) {
            self.space_bytes += bytes.len() as u64;
        }
        Ok(self.writer.stream(&name(of), at, bytes)?)
    }

    fn restart(&mut self, of: Contents) -> io::Result<()> {
        Ok(self.writer.restart(&name(of))?)
    }

    fn unchanged(&mut self, of: Contents, range: Range<u64>) -> io::Result<()> {
        Ok(self.writer.unchanged(&name(of), range)?)
    }
}

/// Where a restore comes from.
pub(super) struct Source(pub(super) Reader);

impl ImageSource for Source {
    fn inventory(&self) -> io::Result<Inventory> {
        let damaged = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        decode(&self.0.record()?).map_err(damaged)
    }

    fn bytes(
        &self,
        of: Contents,
        visit: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        Ok(self.0.stream(&name(of), visit)?)
    }
}
