//! What can go wrong with a store, each with the path it went wrong at.
//!
//! `Damaged` is about bytes, `Missing` about names, `Io` about the operating system. Display never
//! repeats its source: who prints an error prints the chain.
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Failure of an operation on a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Bytes that are not what was written.
    #[error("{} is damaged at byte {at}: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        at: u64,
        /// What is wrong there.
        why: &'static str,
    },
    /// A snapshot that needs what is damaged or missing.
    #[error("snapshot {workload}@{seq} cannot be read")]
    Spoilt {
        /// Whose.
        workload: String,
        /// Its number.
        seq: u64,
        /// What is damaged or missing.
        source: Box<Error>,
    },
    /// Something that ought to be there is not.
    #[error("{what} is missing from {}", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// What: `snapshot web@3`, `a pack`, `chunk 5d3f...`.
        what: String,
    },
    /// The operating system refused.
    #[error("cannot {op} {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The verb: `read`, `create`, `rename`.
        op: &'static str,
        /// Its reason.
        source: io::Error,
    },
    /// The file system has no room left.
    #[error("no space left on the file system of {}", path.display())]
    Full {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// Going on would leave less free than the reserve: nothing was stored.
    #[error(
        "no space left for {}: {free} bytes are free, and {reserve} are kept in reserve",
        path.display()
    )]
    Reserve {
        /// The store.
        path: PathBuf,
        /// What is free, for this user.
        free: u64,
        /// What must stay free.
        reserve: u64,
    },
    /// What was to be stored could not be read where it is.
    #[error("cannot read what is to be stored")]
    Origin(#[source] io::Error),
    /// Another user could change it behind our back.
    #[error("{} belongs to user {owner}", path.display())]
    Foreign {
        /// The file or directory.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
    },
    /// Others can change it behind our back.
    #[error("{} can be written by others (mode {mode:o})", path.display())]
    Exposed {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A newer program wrote it.
    #[error("{} has format version {found}, and this program reads {known}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Somebody is using it; try again.
    #[error("{what} is in use")]
    Busy {
        /// What is.
        what: String,
    },
    /// The caller broke the rules of the interface: offsets that do not ascend, a bad name.
    #[error("{what}")]
    Misuse {
        /// Which rule.
        what: String,
    },
    /// The catalog failed. Snapshots are safe: it is rebuilt from the manifests.
    #[error("the catalog {} failed", path.display())]
    Catalog {
        /// Its file.
        path: PathBuf,
        /// `SQLite`'s reason.
        source: rusqlite::Error,
    },
}

/// Shorthand used throughout the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Says whether the store's contents are at fault, so that an older snapshot may still do.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Damaged { .. } | Self::Spoilt { .. } | Self::Missing { .. } | Self::Newer { .. }
        )
    }

    /// Says whether the catalog has to be made anew, which costs what it alone knows.
    #[must_use]
    pub fn is_catalog_damage(&self) -> bool {
        let Self::Catalog { source, .. } = self else { return false };
        let code = source.sqlite_error_code();
        matches!(code, Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
    }

    /// Says whether more room on the file system would have helped.
    #[must_use]
    pub fn is_space(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Reserve { .. })
    }

    pub(crate) fn damaged(path: &Path, at: u64, why: &'static str) -> Self {
        Self::Damaged { path: path.to_owned(), at, why }
    }

    pub(crate) fn missing(path: &Path, what: impl Into<String>) -> Self {
        Self::Missing { path: path.to_owned(), what: what.into() }
    }
}

/// For `map_err`: names the path and the verb, and tells a full disk from other failures.
pub(crate) fn io_error(op: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::Full { path: path.to_owned() }
        }
        _ => Error::Io { path: path.to_owned(), op, source },
    }
}

/// A store behind somebody's port speaks `io::Result`; the typed error stays inside. What comes from
/// beyond the port goes back as it came.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let error = match error {
            Error::Origin(theirs) => return theirs,
            ours => ours,
        };
        let kind = match &error {
            Error::Damaged { .. } | Error::Spoilt { .. } | Error::Newer { .. } => {
                io::ErrorKind::InvalidData
            }
            Error::Missing { .. } => io::ErrorKind::NotFound,
            Error::Full { .. } | Error::Reserve { .. } => io::ErrorKind::StorageFull,
            Error::Foreign { .. } | Error::Exposed { .. } => io::ErrorKind::PermissionDenied,
            Error::Busy { .. } => io::ErrorKind::ResourceBusy,
            Error::Misuse { .. } => io::ErrorKind::InvalidInput,
            Error::Io { source, .. } | Error::Origin(source) => source.kind(),
            Error::Catalog { .. } => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
