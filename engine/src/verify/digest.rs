//! Digests of bytes, page by page, so that neither side has to be kept.
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::ops::Range;

use crate::image::{Contents, ImageSink, ImageSource};
use crate::inventory::Inventory;

const PAGE: u64 = 4096;

/// Of everything that a capture holds; zeros are as good as nothing.
#[derive(Debug, Default)]
pub(crate) struct Digests(BTreeMap<Contents, Digest>);

#[derive(Debug, Default)]
struct Digest {
    hasher: DefaultHasher,
    /// A page that more may come of.
    page: u64,
    bytes: Vec<u8>,
}

impl Digest {
    fn add(&mut self, mut at: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (page, inside) = (at / PAGE, usize::try_from(at % PAGE).unwrap_or(0));
            if page != self.page {
                self.close();
                self.page = page;
            }
            let room = usize::try_from(PAGE).unwrap_or(0) - inside;
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.bytes.resize(inside.max(self.bytes.len()), 0);
            self.bytes.truncate(inside);
            self.bytes.extend_from_slice(now);
            (at, bytes) = (at + now.len() as u64, later);
        }
    }

    fn close(&mut self) {
        let len = self.bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if let Some(bytes) = self.bytes.get(..len).filter(|bytes| !bytes.is_empty()) {
            (self.page, bytes).hash(&mut self.hasher);
        }
        self.bytes.clear();
    }

    fn finish(mut self) -> u64 {
        self.close();
        self.hasher.finish()
    }
}

impl Digests {
    /// What of these bytes is not as the image has it.
    pub(crate) fn differences(self, image: &dyn ImageSource) -> io::Result<Vec<String>> {
        let mut differences = Vec::new();
        for (of, found) in self.0 {
            let mut saved = Digest::default();
            image.bytes(of, &mut |at, bytes| {
                saved.add(at, bytes);
                Ok(())
            })?;
            if saved.finish() != found.finish() {
                differences.push(match of {
                    Contents::Space(id) => format!("the memory of space {id}"),
                    Contents::Object(id, end) => format!("the bytes of object {id} at end {end}"),
                    Contents::File(id) => format!("the contents of file {id}"),
                });
            }
        }
        Ok(differences)
    }

    /// With a place for everything that `saved` may have bytes of: what is missing differs too.
    pub(crate) fn of(saved: &Inventory) -> Self {
        let spaces = saved.spaces.keys().map(|id| Contents::Space(*id));
        let objects = saved.open_files.values().map(|file| file.refers_to());
        let objects = objects.map(|(id, end)| Contents::Object(id, end));
        Self(spaces.chain(objects).map(|of| (of, Digest::default())).collect())
    }
}

impl ImageSink for Digests {
    fn inventory(&mut self, _: &Inventory) -> io::Result<()> {
        Ok(())
    }

    fn bytes(&mut self, of: Contents, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.entry(of).or_default().add(at, bytes);
        Ok(())
    }

    fn restart(&mut self, of: Contents) -> io::Result<()> {
        self.0.insert(of, Digest::default());
        Ok(())
    }

    fn unchanged(&mut self, _: Contents, _: Range<u64>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(parts: &[(u64, &[u8])]) -> u64 {
        let mut digest = Digest::default();
        parts.iter().for_each(|(at, bytes)| digest.add(*at, bytes));
        digest.finish()
    }

    #[test]
    fn how_bytes_are_cut_does_not_matter_but_where_they_are_does() {
        let whole: Vec<u8> = (0..10_000_u32).map(|n| (n % 251) as u8).collect();
        let at_once = digest(&[(0, &whole)]);
        assert_eq!(
            at_once,
            digest(&[(0, &whole[..4096]), (4096, &whole[4096..5000]), (5000, &whole[5000..])])
        );
        assert_eq!(at_once, digest(&[(0, &whole), (12_288, &[0; 5000])]), "zeros are nothing");
        assert_ne!(at_once, digest(&[(4096, &whole)]));
        assert_ne!(digest(&[(0, b"a")]), digest(&[(1, b"a")]));
    }
}
