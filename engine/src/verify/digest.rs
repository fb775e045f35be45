//! Digests of bytes, page by page, so that neither side has to be kept.
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::ops::Range;

use crate::image::{Contents, ImageSink, ImageSource};
use crate::inventory::{Inventory, Rseq, SpaceId};
use crate::open_file::OpenFile;

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
    /// What the kernel writes as it likes: ascending, each within a page.
    moving: Vec<Range<u64>>,
}

impl Digest {
    fn without(moving: Vec<Range<u64>>) -> Self {
        Self { moving, ..Self::default() }
    }

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
        let start = self.page * PAGE;
        let first = self.moving.partition_point(|range| range.end <= start);
        let moving = self.moving.iter().skip(first);
        for range in moving.take_while(|range| range.start < start + PAGE) {
            let inside = range.start.saturating_sub(start)..range.end - start;
            let inside = inside.filter_map(|at| usize::try_from(at).ok());
            inside.for_each(|at| self.bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = 0));
        }
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
            let mut saved = Digest::without(found.moving.clone());
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
        let spaces = saved.spaces.keys();
        let spaces = spaces.map(|id| (Contents::Space(*id), Digest::without(moving(saved, *id))));
        let objects = saved.open_files.values().map(OpenFile::refers_to);
        let objects = objects.map(|(id, end)| (Contents::Object(id, end), Digest::default()));
        Self(spaces.chain(objects).collect())
    }
}

/// Where the kernel tells threads which processor they run on: `cpu_id_start` and `cpu_id`, then
/// `node_id` and `mm_cid` of `struct rseq` (`include/uapi/linux/rseq.h`, since 6.3).
fn moving(saved: &Inventory, space: SpaceId) -> Vec<Range<u64>> {
    let here = saved.processes.values().filter(|process| process.space == space);
    let threads = here.flat_map(|process| &process.threads);
    let areas = threads.filter_map(|tid| saved.threads.get(tid)?.rseq);
    let fields =
        |rseq: Rseq| [rseq.address..rseq.address + 8, rseq.address + 20..rseq.address + 28];
    let mut moving: Vec<_> = areas.flat_map(fields).collect();
    moving.sort_unstable_by_key(|range| range.start);
    moving
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
    fn what_moves_does_not_matter() {
        let of = |bytes: &[u8]| {
            let mut digest = Digest::without(vec![4098..4100, 9000..9004]);
            digest.add(4096, bytes);
            digest.finish()
        };
        assert_eq!(of(b"abcdef"), of(b"abxyef"));
        assert_ne!(of(b"abcdef"), of(b"abcdeg"));
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
