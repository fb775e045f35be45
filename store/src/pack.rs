//! Packs: files that chunks are appended to, each behind a header with its checksum.
//!
//! A pack never changes once its name ends in `.pack`. Its headers alone say what is in it; an index
//! beside it says the same faster.
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::chunk::{self, Codec, LARGEST_LIST, Name};
use crate::error::{Error, Result, io_error};
use crate::layout::{self, Store};

/// Magic, codec, lengths, name, checksum of what is stored.
const HEADER: usize = 52;
const MAGIC: u32 = u32::from_le_bytes(*b"SNCK");
const INDEX_MAGIC: &[u8; 8] = b"SNAPDIX1";
/// Name, offset, stored, raw, codec.
const INDEX_ENTRY: usize = 32 + 8 + 4 + 4 + 4;

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    /// Which pack, by its place in [`Index::packs`].
    pub(crate) pack: u32,
    /// Of the stored bytes.
    pub(crate) at: u64,
    pub(crate) stored: u32,
    pub(crate) raw: u32,
    pub(crate) codec: Codec,
}

/// All chunks of a store.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) packs: Vec<(PathBuf, Arc<File>)>,
    pub(crate) chunks: HashMap<Name, Location>,
}

impl Index {
    /// Reads what all packs hold.
    pub(crate) fn load(store: &Store) -> Result<Self> {
        let mut index = Self::default();
        let mut names = layout::listed(&store.packs())?;
        names.sort();
        for name in names.iter().filter(|name| is_pack(name)) {
            index.add(&store.packs().join(name))?;
        }
        Ok(index)
    }

    /// Adds a pack that is in place.
    pub(crate) fn add(&mut self, path: &Path) -> Result<()> {
        let file = Arc::new(File::open(path).map_err(io_error("open", path))?);
        let pack = u32::try_from(self.packs.len()).map_err(|_| too_many(path))?;
        let entries = match read_index(path) {
            Some(entries) => entries,
            None => scan(&file, path)?,
        };
        for (name, location) in entries {
            self.chunks.insert(name, Location { pack, ..location });
        }
        self.packs.push((path.to_owned(), file));
        Ok(())
    }

    /// A chunk's bytes, checked.
    pub(crate) fn read(&self, name: &Name, store: &Store) -> Result<Vec<u8>> {
        let missing = || {
            let hex = blake3::Hash::from_bytes(name.0).to_hex();
            Error::missing(&store.packs(), format!("chunk {hex}"))
        };
        let location = self.chunks.get(name).ok_or_else(missing)?;
        let at = usize::try_from(location.pack).unwrap_or(usize::MAX);
        let (path, file) = self.packs.get(at).ok_or_else(missing)?;
        let header_at = location.at.saturating_sub(HEADER as u64);
        let mut bytes = vec![0; HEADER + location.stored as usize];
        let damaged = |why| Error::damaged(path, header_at, why);
        file.read_exact_at(&mut bytes, header_at)
            .map_err(|_| damaged("the pack ends too early"))?;
        let (header, stored) = bytes.split_at(HEADER);
        let (found, seen, sum) = parse_header(header).ok_or_else(|| damaged("no chunk is here"))?;
        if found != *name || (seen.stored, seen.raw) != (location.stored, location.raw) {
            return Err(damaged("another chunk is here"));
        }
        if crc32c::crc32c(stored) != sum {
            return Err(damaged("a chunk's checksum is wrong"));
        }
        chunk::unpack(seen.codec, stored, seen.raw as usize, path, header_at)
    }
}

/// We make these names, all in small letters.
fn is_pack(name: &str) -> bool {
    name.strip_suffix(".pack").is_some()
}

fn too_many(path: &Path) -> Error {
    Error::damaged(path, 0, "there are too many packs")
}

fn parse_header(header: &[u8]) -> Option<(Name, Location, u32)> {
    let word = |at: usize| Some(u32::from_le_bytes(*header.get(at..)?.first_chunk::<4>()?));
    if word(0)? != MAGIC {
        return None;
    }
    let codec = Codec::of(*header.get(4)?)?;
    let (raw, stored, sum) = (word(8)?, word(12)?, word(48)?);
    let name = Name(*header.get(16..)?.first_chunk::<32>()?);
    let sane = raw as usize <= LARGEST_LIST && stored as usize <= LARGEST_LIST;
    sane.then_some((name, Location { pack: 0, at: 0, stored, raw, codec }, sum))
}

/// What a pack holds, by its headers.
fn scan(file: &File, path: &Path) -> Result<Vec<(Name, Location)>> {
    let length = file.metadata().map_err(io_error("stat", path))?.len();
    let (mut at, mut entries) = (0, Vec::new());
    while at < length {
        let mut header = [0; HEADER];
        let ends = || Error::damaged(path, at, "the pack ends too early");
        file.read_exact_at(&mut header, at).map_err(|_| ends())?;
        let parsed = parse_header(&header);
        let (name, location, _) =
            parsed.ok_or_else(|| Error::damaged(path, at, "no chunk is here"))?;
        let body = at + HEADER as u64;
        at = body + u64::from(location.stored);
        if at > length {
            return Err(Error::damaged(path, body, "the pack ends too early"));
        }
        entries.push((name, Location { at: body, ..location }));
    }
    Ok(entries)
}

fn index_path(pack: &Path) -> PathBuf {
    pack.with_extension("index")
}

/// What the index beside a pack says; `None` if it is missing or not to be believed.
fn read_index(pack: &Path) -> Option<Vec<(Name, Location)>> {
    let bytes = fs::read(index_path(pack)).ok()?;
    let (body, sum) = bytes.split_last_chunk::<4>()?;
    let entries = body.strip_prefix(INDEX_MAGIC)?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*sum) {
        return None;
    }
    let (entries, rest) = entries.as_chunks::<INDEX_ENTRY>();
    rest.is_empty().then(|| entries.iter().map(parse_entry).collect())?
}

fn parse_entry(entry: &[u8; INDEX_ENTRY]) -> Option<(Name, Location)> {
    let word = |at: usize| Some(u32::from_le_bytes(*entry.get(at..)?.first_chunk::<4>()?));
    let name = Name(*entry.first_chunk::<32>()?);
    let at = u64::from_le_bytes(*entry.get(32..)?.first_chunk::<8>()?);
    let codec = Codec::of(u8::try_from(word(48)?).ok()?)?;
    Some((name, Location { pack: 0, at, stored: word(40)?, raw: word(44)?, codec }))
}

fn encode_index(entries: &[(Name, Location)]) -> Vec<u8> {
    let mut bytes = INDEX_MAGIC.to_vec();
    for (name, location) in entries {
        bytes.extend_from_slice(&name.0);
        bytes.extend_from_slice(&location.at.to_le_bytes());
        for word in [location.stored, location.raw, location.codec as u32] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
    }
    let sum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// A pack in the making: under another name until it is whole.
#[derive(Debug)]
pub(crate) struct PackWriter {
    path: PathBuf,
    file: BufWriter<File>,
    at: u64,
    entries: Vec<(Name, Location)>,
    finished: bool,
}

impl PackWriter {
    /// Starts one; names are unique by process and moment.
    pub(crate) fn create(store: &Store) -> Result<Self> {
        let path = store.packs().join(unique());
        let file = layout::create(&path.with_extension("tmp"))?;
        let file = BufWriter::with_capacity(1 << 20, file);
        Ok(Self { path, file, at: 0, entries: Vec::new(), finished: false })
    }

    pub(crate) fn append(
        &mut self,
        name: Name,
        codec: Codec,
        raw: usize,
        stored: &[u8],
    ) -> Result<()> {
        let too_long = || Error::Misuse { what: "a chunk is too long".into() };
        let length = u32::try_from(stored.len()).map_err(|_| too_long())?;
        let raw = u32::try_from(raw).map_err(|_| too_long())?;
        let mut header = Vec::with_capacity(HEADER);
        for word in [MAGIC, codec as u32, raw, length] {
            header.extend_from_slice(&word.to_le_bytes());
        }
        header.extend_from_slice(&name.0);
        header.extend_from_slice(&crc32c::crc32c(stored).to_le_bytes());
        let failed = io_error("write", &self.path);
        self.file.write_all(&header).map_err(&failed)?;
        self.file.write_all(stored).map_err(&failed)?;
        let at = self.at + HEADER as u64;
        self.entries.push((name, Location { pack: 0, at, stored: length, raw, codec }));
        self.at = at + stored.len() as u64;
        Ok(())
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> u64 {
        self.at
    }

    /// Makes it durable and puts it in place; nothing if it is empty.
    pub(crate) fn finish(mut self) -> Result<Option<PathBuf>> {
        if self.entries.is_empty() {
            return Ok(None);
        }
        let beside = self.path.with_extension("tmp");
        self.file.flush().map_err(io_error("write", &beside))?;
        self.file.get_ref().sync_data().map_err(io_error("sync", &beside))?;
        let index = index_path(&self.path);
        let mut file = layout::create(&index)?;
        file.write_all(&encode_index(&self.entries)).map_err(io_error("write", &index))?;
        let pack = self.path.with_extension("pack");
        layout::into_place(&beside, &pack)?;
        self.finished = true;
        Ok(Some(pack))
    }
}

impl Drop for PackWriter {
    fn drop(&mut self) {
        if !self.finished {
            drop(fs::remove_file(self.path.with_extension("tmp")));
        }
    }
}

fn unique() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME);
    let now = now.map_or(0, |now| now.tv_sec() * 1_000_000_000 + now.tv_nsec());
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{now:016x}-{:x}-{count:x}", std::process::id())
}

/// Removes a pack that nobody needs. The index goes last: without its pack it means nothing.
pub(crate) fn remove(pack: &Path) -> Result<()> {
    fs::remove_file(pack).map_err(io_error("remove", pack))?;
    drop(fs::remove_file(index_path(pack)));
    Ok(())
}
