//! What a snapshot holds, for `snapd show`: its inventory, and bytes where rows need them.
use std::collections::BTreeMap;
use std::ops::Range;

use engine::inventory::Inventory;
use engine::view::{AreaRow, Held, ProcessRow};
use prost::Message;
use store::Reader;

use crate::bridge::Kept;
use crate::error::{Error, Result};
use crate::home::Home;

/// A snapshot that is looked into.
#[derive(Debug)]
pub struct Contents {
    reader: Reader,
    inventory: Inventory,
}

/// Runs of bytes that an image holds, of each stream.
type Runs = BTreeMap<String, Vec<Range<u64>>>;

impl Contents {
    /// Opens one.
    pub fn open(home: &Home, name: &str, seq: u64) -> Result<Self> {
        let Some(store) = super::store(home)? else {
            return Err(Error::Missing(format!("snapshot {name}@{seq}")));
        };
        let reader = store.read(name, seq)?;
        let inventory = engine::image::decode(&reader.record()?)?;
        Ok(Self { reader, inventory })
    }

    /// Everything but bulk.
    #[must_use]
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// The workload's command, directory and options.
    pub fn kept(&self) -> Result<Kept> {
        let wrong = |_| Error::Damaged("the definition in the snapshot".into());
        Kept::decode(self.reader.definition()).map_err(wrong)
    }

    /// The command lines of these processes, as ps(1) shows them; a zombie's is its name.
    pub fn commands(&self, rows: &[ProcessRow]) -> Result<Vec<String>> {
        let command = |row: &ProcessRow| match row.arguments {
            Some((space, start, end)) => {
                let end = end.min(start.saturating_add(LONGEST));
                let bytes = self.reader.range(&format!("space/{space}"), start..end)?;
                let line = command_line(&bytes);
                Ok(if line.is_empty() { format!("[{}]", row.name) } else { line })
            }
            None => Ok(format!("[{}]", row.name)),
        };
        rows.iter().map(command).collect()
    }

    /// How much of each of these areas the image holds.
    pub fn resident(&self, rows: &[AreaRow]) -> Result<Vec<u64>> {
        let mut runs = Runs::new();
        rows.iter()
            .map(|row| {
                let len = row.end - row.start;
                let (stream, from) = match row.bytes {
                    Held::Space(id) => (format!("space/{id}"), row.start),
                    Held::Object(id, offset) => (format!("object/{id}/0"), offset),
                };
                if !runs.contains_key(&stream) {
                    runs.insert(stream.clone(), self.runs(&stream)?);
                }
                let held = runs.get(&stream).map(Vec::as_slice).unwrap_or_default();
                Ok(overlap(held, &(from..from.saturating_add(len))))
            })
            .collect()
    }

    fn runs(&self, stream: &str) -> Result<Vec<Range<u64>>> {
        let extents = self.reader.extents(stream)?;
        Ok(extents.into_iter().map(|(at, len)| at..at.saturating_add(len)).collect())
    }
}

/// No command line that anybody reads is longer.
const LONGEST: u64 = 1 << 17;

/// Arguments end with zeros; in a line there are spaces between them.
fn command_line(bytes: &[u8]) -> String {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    let spaced = bytes.iter().take(end).map(|byte| if *byte == 0 { b' ' } else { *byte });
    String::from_utf8_lossy(&spaced.collect::<Vec<_>>()).into_owned()
}

fn overlap(held: &[Range<u64>], area: &Range<u64>) -> u64 {
    let common = |run: &Range<u64>| run.end.min(area.end).saturating_sub(run.start.max(area.start));
    held.iter().map(common).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_become_a_line() {
        assert_eq!(command_line(b"sh\0-c\0sleep 1\0\0"), "sh -c sleep 1");
        assert_eq!(command_line(b"\0\0"), "");
    }

    #[test]
    fn only_what_lies_in_the_area_counts() {
        let held = [0..10, 20..30];
        assert_eq!(overlap(&held, &(5..25)), 10);
        assert_eq!(overlap(&held, &(10..20)), 0);
    }
}
