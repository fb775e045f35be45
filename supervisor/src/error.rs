//! What can go wrong around a workload, sorted as scripts see it.
use std::io;
use std::path::PathBuf;

use crate::wire::Fault;

/// What a script is told by the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Sort {
    /// Failed or refused.
    Failed = 0,
    /// There is no such workload, snapshot or process.
    Missing = 1,
    /// A store, image or snapshot is damaged or cannot be read.
    Damaged = 2,
    /// Try again.
    Busy = 3,
    /// The command cannot be executed (126).
    NotExecutable = 4,
    /// The command was not found (127).
    NotFound = 5,
}

/// Failure of a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {what}")]
    Io {
        /// Verb and object.
        what: String,
        /// Its reason.
        source: io::Error,
    },
    /// A process at the other end of a socket said so.
    #[error("{}", .0.text)]
    Told(Box<Fault>),
    /// No such workload or snapshot.
    #[error("there is no {0}")]
    Missing(String),
    /// It runs already, or somebody is at it.
    #[error("{0}")]
    Busy(String),
    /// Anything else that needs no more than a sentence.
    #[error("{0}")]
    Refused(String),
    /// The other end of a socket went away, or does not speak our language.
    #[error("lost the connection to {0}")]
    Lost(&'static str),
    /// It ended before it could answer.
    #[error("workload {0:?} has ended")]
    Ended(String),
    /// Bytes that are not what was written.
    #[error("{0} is damaged")]
    Damaged(String),
    /// The store's.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Processes could not be brought back after files had been.
    #[error("files were put back before it failed; what they held is kept in {}", .undone.display())]
    AfterRollBack {
        /// Where.
        undone: PathBuf,
        /// Why.
        #[source]
        cause: engine::error::Error,
    },
    /// The engine's.
    #[error(transparent)]
    Engine(#[from] engine::error::Error),
}

/// Shorthand used throughout the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// For scripts.
    #[must_use]
    pub fn sort(&self) -> Sort {
        match self {
            Self::Told(fault) => fault.sort(),
            Self::Missing(_) => Sort::Missing,
            Self::Busy(_) => Sort::Busy,
            Self::Damaged(_) => Sort::Damaged,
            Self::Store(error) if error.is_damage() || error.is_catalog_damage() => Sort::Damaged,
            Self::Store(store::Error::Busy { .. }) => Sort::Busy,
            Self::Engine(error) | Self::AfterRollBack { cause: error, .. } => sort_of(error),
            _ => Sort::Failed,
        }
    }
}

fn sort_of(error: &engine::error::Error) -> Sort {
    use engine::error::Error as E;
    match error {
        E::Refused(all) if all.iter().all(|one| one.cause.code.starts_with("busy:")) => Sort::Busy,
        E::Refused(all) if all.iter().any(|one| one.cause.code == "process:gone") => Sort::Missing,
        E::Record(..) => Sort::Damaged,
        E::Image(source) if source.kind() == io::ErrorKind::InvalidData => Sort::Damaged,
        E::Image(source) if source.kind() == io::ErrorKind::NotFound => Sort::Damaged,
        _ => Sort::Failed,
    }
}

/// For `map_err`: says what was tried.
pub(crate) fn cannot<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Error {
    let what = what.into();
    move |source| Error::Io { what, source: source.into() }
}
