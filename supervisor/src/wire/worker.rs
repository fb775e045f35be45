//! Between a keeper and its worker.
use super::shim::{Empty, Fault, Obstacle, Settled};
use crate::definition::Definition;

/// To a worker: one request, then nothing more.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ToWorker {
    /// Which.
    #[prost(oneof = "to_worker::Of", tags = "1, 2, 3")]
    pub of: Option<to_worker::Of>,
}

/// The requests.
pub mod to_worker {
    /// What a worker is for.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Of {
        /// Takes a snapshot.
        #[prost(message, tag = "1")]
        Take(super::Take),
        /// Brings the workload back.
        #[prost(message, tag = "2")]
        Bring(super::Bring),
        /// Looks for obstacles.
        #[prost(message, tag = "3")]
        Look(super::Empty),
    }
}

/// How to take a snapshot.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Take {
    /// The state directory.
    #[prost(bytes = "vec", tag = "1")]
    pub dir: Vec<u8>,
    /// The workload, which goes into the snapshot.
    #[prost(message, required, tag = "2")]
    pub definition: Definition,
    /// Why: the word of the command line.
    #[prost(string, tag = "3")]
    pub trigger: String,
    /// Tags for it.
    #[prost(string, repeated, tag = "4")]
    pub tags: Vec<String>,
    /// Kill the tree once it is durable.
    #[prost(bool, tag = "5")]
    pub stop: bool,
}

/// How to bring a workload back.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Bring {
    /// The state directory.
    #[prost(bytes = "vec", tag = "1")]
    pub dir: Vec<u8>,
    /// Whose snapshot.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Its number.
    #[prost(uint64, tag = "3")]
    pub seq: u64,
    /// `--accept-changed`.
    #[prost(bool, tag = "4")]
    pub accept_changed: bool,
    /// `--files keep`.
    #[prost(bool, tag = "5")]
    pub keep_files: bool,
    /// Files that others are writing: left alone.
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub held: Vec<Vec<u8>>,
    /// `--tcp close`.
    #[prost(bool, tag = "7")]
    pub close_tcp: bool,
    /// Who comes back: another name than the snapshot's with `--as`.
    #[prost(string, tag = "8")]
    pub as_name: String,
    /// `--verify`: what came back is compared with the image before it runs on.
    #[prost(bool, tag = "9")]
    pub verify: bool,
}

/// From a worker.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FromWorker {
    /// Which.
    #[prost(oneof = "from_worker::Of", tags = "1, 2, 3, 4, 5")]
    pub of: Option<from_worker::Of>,
}

/// The answers.
pub mod from_worker {
    /// The last one is the result.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Of {
        /// How far it is.
        #[prost(message, tag = "1")]
        Progress(super::Progress),
        /// A snapshot is durable.
        #[prost(message, tag = "2")]
        Taken(super::Taken),
        /// The workload runs again.
        #[prost(message, tag = "3")]
        Brought(super::Brought),
        /// All obstacles.
        #[prost(message, tag = "4")]
        Found(super::Found),
        /// It failed; nothing was changed.
        #[prost(message, tag = "5")]
        Failed(super::Fault),
    }
}

/// How far.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Progress {
    /// Bytes done.
    #[prost(uint64, tag = "1")]
    pub done: u64,
    /// Of so many; 0: not known.
    #[prost(uint64, tag = "2")]
    pub of: u64,
}

/// A snapshot.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Taken {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    /// For how long the program stood still.
    #[prost(double, tag = "2")]
    pub pause_ms: f64,
    /// How long all of it took.
    #[prost(double, tag = "3")]
    pub took_ms: f64,
    /// Where the streams stood.
    #[prost(message, optional, tag = "4")]
    pub settled: Option<Settled>,
}

/// A workload that runs again.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Brought {
    /// Its first process, as it sees itself.
    #[prost(int32, tag = "1")]
    pub first: i32,
    /// What is worth knowing.
    #[prost(string, repeated, tag = "2")]
    pub notes: Vec<String>,
}

/// What is in the way.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Found {
    /// All of it.
    #[prost(message, repeated, tag = "1")]
    pub obstacles: Vec<Obstacle>,
}
