//! Between commands and a keeper.
use super::shim::{Empty, Fault};
use super::worker::{Found, Progress};

/// To a keeper.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ToKeeper {
    /// Which.
    #[prost(oneof = "to_keeper::Of", tags = "1, 2, 3, 4, 5, 6")]
    pub of: Option<to_keeper::Of>,
}

/// The requests.
pub mod to_keeper {
    /// What commands ask for.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Of {
        /// How it is.
        #[prost(message, tag = "1")]
        Status(super::Empty),
        /// A snapshot, durable before the answer comes.
        #[prost(message, tag = "2")]
        Checkpoint(super::AskCheckpoint),
        /// The end; answered when it is there.
        #[prost(message, tag = "3")]
        Stop(super::AskStop),
        /// The end, by force.
        #[prost(message, tag = "4")]
        Kill(super::Empty),
        /// Back to a snapshot; answered when it runs again.
        #[prost(message, tag = "5")]
        Rollback(super::AskRollback),
        /// All obstacles.
        #[prost(message, tag = "6")]
        Look(super::Empty),
    }
}

/// For a snapshot.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AskCheckpoint {
    /// The workload ends once it is safe.
    #[prost(bool, tag = "1")]
    pub stop: bool,
    /// Tags for it.
    #[prost(string, repeated, tag = "2")]
    pub tags: Vec<String>,
}

/// For the end.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct AskStop {
    /// Which signal.
    #[prost(int32, tag = "1")]
    pub signal: i32,
    /// Patience, in milliseconds.
    #[prost(uint64, tag = "2")]
    pub timeout_ms: u64,
}

/// For the way back.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct AskRollback {
    /// Which snapshot.
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    /// `--accept-changed`.
    #[prost(bool, tag = "2")]
    pub accept_changed: bool,
    /// `--files`, if given.
    #[prost(enumeration = "Files", tag = "3")]
    pub files: i32,
    /// `--verify`.
    #[prost(bool, tag = "4")]
    pub verify: bool,
}

/// What becomes of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Files {
    /// As the workload was started.
    Default = 0,
    /// `rollback`, in so many words.
    RollBack = 1,
    /// `keep`.
    Keep = 2,
}

/// From a keeper.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FromKeeper {
    /// Which.
    #[prost(oneof = "from_keeper::Of", tags = "1, 2, 3, 4, 5")]
    pub of: Option<from_keeper::Of>,
}

/// The answers.
pub mod from_keeper {
    /// One for each request, after any number of `Progress`. A keeper that was just started sends
    /// those of the start by itself.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Of {
        /// How it is.
        #[prost(message, tag = "1")]
        Info(super::Info),
        /// Done; the snapshot concerned, or 0.
        #[prost(uint64, tag = "2")]
        Done(u64),
        /// Not done.
        #[prost(message, tag = "3")]
        Refused(super::Fault),
        /// How far it is.
        #[prost(message, tag = "4")]
        Progress(super::Progress),
        /// What is in the way.
        #[prost(message, tag = "5")]
        Found(super::Found),
    }
}

/// How a workload is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Info {
    /// The word.
    #[prost(string, tag = "1")]
    pub state: String,
    /// Its first process on the host; 0: none.
    #[prost(int32, tag = "2")]
    pub pid: i32,
    /// The same as it sees itself.
    #[prost(int32, tag = "3")]
    pub inner_pid: i32,
    /// In how many milliseconds the next snapshot is due.
    #[prost(uint64, optional, tag = "4")]
    pub next_in_ms: Option<u64>,
}
