//! Packs: files that chunks are appended to, each behind a header with its checksum.
//!
//! A pack never changes once its name ends in `.pack`. Its headers alone say what is in it; an index
//! beside it says the same faster.
//!
//! What is very large goes past the page cache: that takes a tenth of the processor time, and does not
//! push out what the workload needs there. The beginning of each pack goes through it, so that it is
//! found there when it is restored. Direct writes want to begin and end at multiples of [`ALIGN`].
use std::cell::OnceCell;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::chunk::{Codec, LARGEST_LIST, Name};
use crate::error::{Error, Result};
use crate::layout::Store;
use crate::medium::Medium;

/// Magic, codec, lengths, name, checksum of what is stored.
pub(crate) const HEADER: usize = 52;
const MAGIC: u32 = u32::from_le_bytes(*b"SNCK");
const INDEX_MAGIC: &[u8; 8] = b"SNAPDIX1";
/// Name, offset, stored, raw, codec.
const INDEX_ENTRY: usize = 32 + 8 + 4 + 4 + 4;
/// Where direct writes begin and end.
pub(crate) const ALIGN: usize = 4096;
/// How much of a pack goes through the page cache, where a restore soon after finds it: 1 GiB is read
/// there in three quarters of the time. What comes behind would push out what others need.
const CACHED: u64 = if cfg!(test) { 64 << 20 } else { 1 << 30 };

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    /// Which pack, by its place in the index.
    pub(crate) pack: u32,
    /// Of the stored bytes.
    pub(crate) at: u64,
    pub(crate) stored: u32,
    pub(crate) raw: u32,
    pub(crate) codec: Codec,
}

impl Location {
    /// Whether its lengths may be believed: they are read from files, and then made room for.
    fn is_sane(&self) -> bool {
        [self.raw, self.stored].iter().all(|len| *len as usize <= LARGEST_LIST)
    }
}

/// What a pack holds, in its order.
pub(crate) type Listing = Vec<(Name, Location)>;

/// We make these names, all in small letters.
pub(crate) fn is_pack(name: &str) -> bool {
    name.strip_suffix(".pack").is_some()
}

pub(crate) fn is_draft(name: &str) -> bool {
    name.strip_suffix(".tmp").is_some()
}

/// The name of a pack's file.
pub(crate) fn name_of(pack: &Path) -> Option<String> {
    Some(pack.file_name()?.to_str()?.to_owned())
}

/// Says that a pack is not to be relied on: what it holds is stored anew with the next snapshot.
pub(crate) fn distrust_path(pack: &Path) -> PathBuf {
    pack.with_extension("damaged")
}

pub(crate) fn index_path(pack: &Path) -> PathBuf {
    pack.with_extension("index")
}

/// What a header says: name, place (but for its own), and the checksum of what follows.
pub(crate) fn parse_header(header: &[u8]) -> Option<(Name, Location, u32)> {
    let word = |at: usize| Some(u32::from_le_bytes(*header.get(at..)?.first_chunk::<4>()?));
    if word(0)? != MAGIC {
        return None;
    }
    let codec = Codec::of(*header.get(4)?)?;
    let (raw, stored, sum) = (word(8)?, word(12)?, word(48)?);
    let name = Name(*header.get(16..)?.first_chunk::<32>()?);
    let location = Location { pack: 0, at: 0, stored, raw, codec };
    location.is_sane().then_some((name, location, sum))
}

/// The other way. The checksum covers what is stored.
pub(crate) fn header(name: &Name, codec: Codec, raw: u32, stored: &[u8]) -> Result<[u8; HEADER]> {
    let too_long = || Error::Misuse { what: "a chunk is too long".into() };
    let length = u32::try_from(stored.len()).map_err(|_| too_long())?;
    let mut header = [0; HEADER];
    let words = [MAGIC, codec as u32, raw, length].map(u32::to_le_bytes).concat();
    let parts = [words.as_slice(), &name.0, &crc32c::crc32c(stored).to_le_bytes()].concat();
    header.copy_from_slice(&parts);
    Ok(header)
}

/// What a pack holds: by the index beside it if that is right, else by its headers. Of a damaged
/// pack, what comes before the damage: the rest is missing for whoever needs it, and nobody else.
pub(crate) fn listing(pack: &Path) -> Result<Listing, std::io::Error> {
    match read_index(pack) {
        Some(entries) => Ok(entries),
        None => scan(&File::open(pack)?, pack),
    }
}

fn scan(file: &File, path: &Path) -> Result<Listing, std::io::Error> {
    let length = file.metadata()?.len();
    let (mut at, mut entries) = (0, Listing::new());
    while at < length {
        let mut header = [0; HEADER];
        let part = usize::try_from(length - at).map_or(HEADER, |left| left.min(HEADER));
        file.read_exact_at(header.get_mut(..part).unwrap_or_default(), at)?;
        let body = at + HEADER as u64;
        let whole = |(_, one, _): &(Name, Location, u32)| body + u64::from(one.stored) <= length;
        if let Some((name, location, _)) = parse_header(&header).filter(whole) {
            at = body + u64::from(location.stored);
            entries.push((name, Location { at: body, ..location }));
        } else if let Some(next) = beyond_gap(at, &header) {
            at = next;
        } else {
            tracing::warn!(pack = %path.display(), at, "the pack is damaged from here on");
            break;
        }
    }
    Ok(entries)
}

/// Where the next chunk begins, if there is none here because a direct write had to be aligned.
fn beyond_gap(at: u64, bytes: &[u8; HEADER]) -> Option<u64> {
    let next = at.next_multiple_of(ALIGN as u64);
    let gap = usize::try_from(next - at).ok()?.min(HEADER);
    let zero = bytes.get(..gap)?.iter().all(|byte| *byte == 0);
    (next > at && zero).then_some(next)
}

/// What the index beside a pack says; `None` if it is missing or not to be believed.
fn read_index(pack: &Path) -> Option<Listing> {
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
    let location = Location { pack: 0, at, stored: word(40)?, raw: word(44)?, codec };
    location.is_sane().then_some((name, location))
}

fn encode_index(entries: &[(Name, Location)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(12 + entries.len() * INDEX_ENTRY);
    bytes.extend_from_slice(INDEX_MAGIC);
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
    medium: Medium,
    path: PathBuf,
    pub(crate) file: Arc<File>,
    /// For writes past the page cache, once they begin, and where there are such.
    direct: OnceCell<Option<Arc<File>>>,
    at: u64,
    entries: Listing,
    finished: bool,
}

/// Room in a pack that was given to somebody, who is to fill it.
#[derive(Debug)]
pub(crate) struct Extent {
    pub(crate) file: Arc<File>,
    /// To be preferred.
    pub(crate) direct: Option<Arc<File>>,
    pub(crate) path: PathBuf,
    pub(crate) at: u64,
}

impl PackWriter {
    /// Starts one; names are unique by process and moment.
    pub(crate) fn create(store: &Store) -> Result<Self> {
        let path = store.packs().join(unique());
        let medium = store.medium().clone();
        let file = Arc::new(medium.create(&path.with_extension("tmp"))?);
        Ok(Self {
            medium,
            path,
            file,
            direct: OnceCell::new(),
            at: 0,
            entries: Vec::new(),
            finished: false,
        })
    }

    /// Gives out room for `len` bytes with these chunks in them, whose places count from the first
    /// byte. If it is `much`, there may be a way past the page cache: then all up to the next multiple
    /// of [`ALIGN`] is to be written.
    pub(crate) fn extend(
        &mut self,
        chunks: impl IntoIterator<Item = (Name, Location)>,
        len: u64,
        much: bool,
    ) -> Extent {
        let (file, path) = (Arc::clone(&self.file), self.path.with_extension("tmp"));
        let direct = if much && self.at >= CACHED { self.direct() } else { None };
        let step = if direct.is_some() { ALIGN as u64 } else { 1 };
        let at = self.at.next_multiple_of(step);
        let placed = |(name, one): (Name, Location)| (name, Location { at: at + one.at, ..one });
        self.entries.extend(chunks.into_iter().map(placed));
        self.at = (at + len).next_multiple_of(step);
        Extent { file, direct, path, at }
    }

    fn direct(&self) -> Option<Arc<File>> {
        let open = || Medium::open_direct(&self.path.with_extension("tmp")).map(Arc::new);
        self.direct.get_or_init(open).clone()
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> u64 {
        self.at
    }

    /// Makes its bytes durable and puts it in place. Its name is durable once `packs/` is synced.
    pub(crate) fn finish(mut self) -> Result<Option<PathBuf>> {
        if self.entries.is_empty() {
            return Ok(None);
        }
        let beside = self.path.with_extension("tmp");
        self.medium.sync(&self.file, &beside)?;
        let index = index_path(&self.path);
        let file = self.medium.create(&index)?;
        let pack = self.path.with_extension("pack");
        let put = self.medium.write_at(&file, &index, &[&encode_index(&self.entries)], 0);
        if let Err(error) = put.and_then(|()| self.medium.rename(&beside, &pack)) {
            drop(self.medium.remove(&index));
            return Err(error);
        }
        self.finished = true;
        Ok(Some(pack))
    }
}

impl Drop for PackWriter {
    fn drop(&mut self) {
        if !self.finished {
            drop(self.medium.remove(&self.path.with_extension("tmp")));
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
