//! Where each chunk of a store lies.
//!
//! A writer knows all packs, to store nothing twice. A reader knows those that its manifest names,
//! and looks at the others only for what is not there: pruning may have moved it meanwhile.
use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::chunk::{self, Codec, Name};
use crate::error::{Error, Result, io_error};
use crate::layout::{self, Store};
use crate::pack::{self, HEADER, Listing, Location};

/// How many packs are held open at once: pages that changed one by one come from as many in turn.
const OPEN: usize = 256;

/// Names are hashes already.
#[derive(Debug, Default)]
pub(crate) struct Prefix(u64);

impl Hasher for Prefix {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 ^= u64::from_le_bytes(*first);
        }
    }
    fn write_usize(&mut self, _: usize) {}
    fn finish(&self) -> u64 {
        self.0
    }
}

pub(crate) type ByName<T> = HashMap<Name, T, BuildHasherDefault<Prefix>>;
pub(crate) type Names = std::collections::HashSet<Name, BuildHasherDefault<Prefix>>;

/// Chunks of some packs of a store.
#[derive(Debug, Default)]
pub(crate) struct Index {
    dir: PathBuf,
    pub(crate) packs: Vec<PathBuf>,
    pub(crate) chunks: ByName<Location>,
    /// Those that were used last, and are open still.
    open: Mutex<Vec<(u32, Arc<File>)>>,
}

impl Index {
    /// Of all packs whose name `wanted` says yes to.
    pub(crate) fn load(store: &Store, wanted: &dyn Fn(&str) -> bool) -> Result<Self> {
        let mut index = Self { dir: store.packs(), ..Self::default() };
        let mut names = layout::listed(&index.dir)?;
        names.sort();
        let mut listings = Vec::new();
        for name in names.iter().filter(|name| pack::is_pack(name) && wanted(name)) {
            let path = store.packs().join(name);
            match pack::listing(&path) {
                Ok(listing) => listings.push((path, listing)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io_error("read", &path)(error)),
            }
        }
        // At once: growing step by step takes as long again.
        index.chunks.reserve(listings.iter().map(|(_, listing)| listing.len()).sum());
        for (path, listing) in listings {
            index.add(path, listing)?;
        }
        Ok(index)
    }

    /// Adds what a pack holds: the newest that has a chunk is the one to take it from.
    fn add(&mut self, path: PathBuf, listing: Listing) -> Result<()> {
        let too_many = |_| Error::damaged(&path, 0, "there are too many packs");
        let pack = u32::try_from(self.packs.len()).map_err(too_many)?;
        let placed = |(name, location)| (name, Location { pack, ..location });
        self.chunks.extend(listing.into_iter().map(placed));
        self.packs.push(path);
        Ok(())
    }

    fn file(&self, location: &Location) -> Result<(&Path, Arc<File>)> {
        let gone = || Error::Misuse { what: "a pack is not in its index".into() };
        let path = self.path(location).ok_or_else(gone)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, file)) = open.iter().find(|(pack, _)| *pack == location.pack) {
            return Ok((path, Arc::clone(file)));
        }
        let file = match File::open(path) {
            Ok(file) => Arc::new(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::missing(path, "a pack"));
            }
            Err(error) => return Err(io_error("open", path)(error)),
        };
        if open.len() == OPEN {
            open.remove(0);
        }
        open.push((location.pack, Arc::clone(&file)));
        Ok((path, file))
    }

    /// Reads what lies in the pack of a chunk.
    pub(crate) fn read_at(&self, location: &Location, at: u64, into: &mut [u8]) -> Result<()> {
        let (path, file) = self.file(location)?;
        file.read_exact_at(into, at).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::damaged(path, at, "the pack ends too early"),
            _ => io_error("read", path)(error),
        })
    }

    /// Whether these bytes, header in front, are a chunk: checked but for the decompressed bytes.
    pub(crate) fn check<'a>(
        &self,
        name: &Name,
        location: &Location,
        stored: &'a [u8],
    ) -> Result<Stored<'a>> {
        let at = location.at.saturating_sub(HEADER as u64);
        let damaged = |why| Error::damaged(self.path(location).unwrap_or(&self.dir), at, why);
        let (header, bytes) =
            stored.split_at_checked(HEADER).ok_or_else(|| damaged("the pack ends too early"))?;
        let parsed = pack::parse_header(header).ok_or_else(|| damaged("no chunk is here"))?;
        let (found, seen, sum) = parsed;
        if found != *name || (seen.stored, seen.raw) != (location.stored, location.raw) {
            return Err(damaged("another chunk is here"));
        }
        if crc32c::crc32c(bytes) != sum {
            return Err(damaged("a chunk's checksum is wrong"));
        }
        Ok(Stored { codec: seen.codec, bytes })
    }

    /// A chunk as it is stored, header in front.
    pub(crate) fn stored(&self, name: &Name, into: &mut Vec<u8>) -> Result<Location> {
        let location = self.chunks.get(name).ok_or_else(|| self.missing(name))?;
        into.resize(HEADER + location.stored as usize, 0);
        self.read_at(location, location.at.saturating_sub(HEADER as u64), into)?;
        let Stored { codec, .. } = self.check(name, location, into)?;
        Ok(Location { codec, ..*location })
    }

    /// Appends a chunk's bytes to `into`, checked. `room` is for the stored form.
    pub(crate) fn read_to(
        &self,
        name: &Name,
        room: &mut Vec<u8>,
        into: &mut Vec<u8>,
    ) -> Result<()> {
        let location = self.stored(name, room)?;
        let before = into.len();
        into.resize(before + location.raw as usize, 0);
        let stored = room.get(HEADER..).unwrap_or_default();
        let done =
            chunk::unpack(location.codec, stored, into.get_mut(before..).unwrap_or_default());
        let (path, at) = self.place(name).unwrap_or((&self.dir, 0));
        done.ok_or_else(|| Error::damaged(path, at, "a chunk does not decompress"))
    }

    /// A chunk's bytes, checked.
    pub(crate) fn read(&self, name: &Name) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read_to(name, &mut Vec::new(), &mut bytes)?;
        Ok(bytes)
    }

    /// No pack that is known has it.
    pub(crate) fn missing(&self, name: &Name) -> Error {
        let hex = blake3::Hash::from_bytes(name.0).to_hex();
        Error::missing(&self.dir, format!("chunk {hex}"))
    }

    /// Where a chunk's header is: for errors about it.
    pub(crate) fn place(&self, name: &Name) -> Option<(&Path, u64)> {
        let location = self.chunks.get(name)?;
        Some((self.path(location)?, location.at.saturating_sub(HEADER as u64)))
    }

    fn path(&self, location: &Location) -> Option<&Path> {
        self.packs.get(usize::try_from(location.pack).ok()?).map(PathBuf::as_path)
    }
}

/// A chunk in its stored form.
#[derive(Debug)]
pub(crate) struct Stored<'a> {
    pub(crate) codec: Codec,
    pub(crate) bytes: &'a [u8],
}
