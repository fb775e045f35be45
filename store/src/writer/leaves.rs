//! The indexes of the streams, once all their entries are known.
use std::collections::BTreeMap;

use super::Writer;
use crate::error::Result;
use crate::leaf::{self, Entries, LEAF};
use crate::manifest::Stream;

/// How many leaves are stored at once.
const LEAVES: usize = 64;

impl Writer {
    /// Writes the leaves of all streams; says where they are, and in which packs all of it lies.
    pub(super) fn indexes(&mut self) -> Result<(Vec<Stream>, Vec<String>)> {
        let mut by_stream: BTreeMap<u32, Entries> = BTreeMap::new();
        for (stream, entry) in std::mem::take(&mut self.packer.entries) {
            by_stream.entry(stream).or_default().push(entry);
        }
        let (mut streams, mut owners, mut leaves) = (Vec::new(), Vec::new(), Vec::new());
        let mut names = Vec::new();
        for (number, (name, open)) in self.streams.iter().enumerate() {
            streams.push(Stream { name: name.clone(), leaves: Vec::new() });
            let entries = by_stream.entry(open.id).or_default();
            entries.sort_by_key(|entry| entry.at); // Mostly they ascend already.
            for part in entries.chunk_by(|a, b| a.at / LEAF == b.at / LEAF) {
                owners.push(number);
                leaves.push(leaf::encode(part));
                if leaves.len() == LEAVES {
                    names.extend(self.packer.store(&std::mem::take(&mut leaves))?);
                }
            }
        }
        names.extend(self.packer.store(&leaves)?);
        for (number, name) in owners.iter().zip(&names) {
            if let Some(stream) = streams.get_mut(*number) {
                stream.leaves.push(name.0.to_vec());
            }
        }
        let live = self.streams.values().filter_map(|open| by_stream.get(&open.id));
        let chunks = live.flatten().map(|entry| &entry.name);
        let packs = self.packer.packs_of(chunks.chain(&names));
        Ok((streams, packs))
    }
}

#[cfg(test)]
mod tests {
    use crate::leaf::{Entry, Pages};
    use crate::tests::{begin, meta, noise, store};

    /// As only a leaf that somebody else made could say.
    #[test]
    fn what_a_chunk_does_not_have_is_damage_for_whoever_asks() {
        let (_dir, store) = store();
        let mut writer = begin(&store, None).unwrap();
        writer.stream("space/0", 0, &noise(10_000, 3)).unwrap();
        writer.settle().unwrap();
        writer.streams.get_mut("space/0").unwrap().turn_to(1 << 20, &mut writer.packer).unwrap();
        writer.settle().unwrap();
        let [(id, whole)] = *writer.packer.entries else { panic!("one chunk") };
        let pages = Some(Pages { first: 2, count: 2 });
        writer.packer.entries.push((id, Entry { at: 1 << 20, pages, ..whole }));
        writer.commit(meta()).unwrap();
        let reader = store.read("web", 1).unwrap();
        let nothing = &mut |_: u64, _: &[u8]| Ok(());
        assert!(reader.stream("space/0", nothing).unwrap_err().is_damage());
        assert!(reader.range("space/0", 1 << 20..(1 << 20) + 1).unwrap_err().is_damage());
        assert!(reader.extents("space/0").unwrap_err().is_damage());
        assert!(reader.check().unwrap_err().is_damage());
        assert!(reader.verify().unwrap_err().is_damage());
        let mut writer = begin(&store, Some(1)).unwrap();
        writer.unchanged("space/0", 0..1 << 20).unwrap();
        assert!(writer.unchanged("space/0", 1 << 20..2 << 20).unwrap_err().is_damage());
    }
}
