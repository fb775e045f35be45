//! To the shim and back.
use prost::Message;

use crate::definition::Definition;
use crate::error::Sort;

/// To a shim.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ToShim {
    /// Which.
    #[prost(oneof = "to_shim::Of", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14")]
    pub of: Option<to_shim::Of>,
}

/// The requests.
pub mod to_shim {
    /// From a keeper, unless said otherwise.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Of {
        /// First of all, by the connection that the shim was started with.
        #[prost(message, tag = "1")]
        Configure(super::Configure),
        /// Starts the workload's first process.
        #[prost(message, tag = "2")]
        Start(super::Empty),
        /// Starts a worker; its program and its connection to the keeper come as descriptors.
        #[prost(message, tag = "3")]
        Work(super::Work),
        /// Sends a signal.
        #[prost(message, tag = "4")]
        Signal(super::Signal),
        /// Asks for what is written to the terminal, and for news.
        #[prost(message, tag = "5")]
        Attach(super::Attach),
        /// Typed.
        #[prost(bytes = "vec", tag = "6")]
        Input(Vec<u8>),
        /// So many bytes of [`super::from_shim::Of::Output`] have been dealt with.
        #[prost(uint64, tag = "7")]
        Taken(u64),
        /// The terminal has changed its size.
        #[prost(message, tag = "8")]
        Resize(super::Resize),
        /// Input before this position will not be needed again.
        #[prost(uint64, tag = "9")]
        TrimInput(u64),
        /// Asks for [`super::Status`].
        #[prost(message, tag = "10")]
        Ask(super::Empty),
        /// From a worker that has stopped the tree: takes all output; asks for [`super::Settled`].
        #[prost(message, tag = "11")]
        Settle(super::Empty),
        /// From a worker: this is the workload's first process now.
        #[prost(int32, tag = "12")]
        Adopt(i32),
        /// First of all from a keeper that takes over: asks for the files that were handed to the
        /// workload, as [`super::from_shim::Of::Streams`] with descriptors, and for [`super::Status`].
        #[prost(message, tag = "13")]
        TakeOver(super::Empty),
        /// From a worker: keeps these, which come as descriptors, for the next one. Answered by
        /// [`super::from_shim::Of::Watching`].
        #[prost(message, tag = "14")]
        Watch(super::Watching),
    }
}

/// From a shim.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FromShim {
    /// Which.
    #[prost(oneof = "from_shim::Of", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11")]
    pub of: Option<from_shim::Of>,
}

/// The answers and the news.
pub mod from_shim {
    /// To a keeper, unless said otherwise.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Of {
        /// Asked for, and sent when configured, started and adopted.
        #[prost(message, tag = "1")]
        Status(super::Status),
        /// What was asked for cannot be had.
        #[prost(message, tag = "2")]
        Refused(super::Fault),
        /// A worker runs under this pid.
        #[prost(int32, tag = "3")]
        Working(i32),
        /// A worker has ended.
        #[prost(int32, tag = "4")]
        Worked(i32),
        /// Written to the terminal.
        #[prost(bytes = "vec", tag = "5")]
        Output(Vec<u8>),
        /// The first process was stopped by this signal; 0: it goes on.
        #[prost(int32, tag = "6")]
        Stopped(i32),
        /// The first process has ended.
        #[prost(message, tag = "7")]
        Ended(super::Ended),
        /// Nothing is left of the tree, and all its output was passed on: the shim ends.
        #[prost(message, tag = "8")]
        Gone(super::Ended),
        /// To a worker: the names of the descriptors that come with this.
        #[prost(message, tag = "9")]
        Streams(super::Streams),
        /// To a worker.
        #[prost(message, tag = "10")]
        Settled(super::Settled),
        /// To a worker: they are kept.
        #[prost(message, tag = "11")]
        Watching(super::Empty),
    }
}

/// Nothing more to say.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Empty {}

/// What a shim has to know.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Configure {
    /// The keeper's [`super::VERSION`].
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The state directory.
    #[prost(bytes = "vec", tag = "2")]
    pub dir: Vec<u8>,
    /// The workload.
    #[prost(message, required, tag = "3")]
    pub definition: Definition,
    /// Where the log has to go on: what is behind that is undone. `None`: a new run.
    #[prost(message, optional, tag = "4")]
    pub from: Option<Settled>,
    /// A new run in the place of one that came to nothing: it gets the input of that one again.
    #[prost(bool, tag = "5")]
    pub input_again: bool,
}

/// How to start a worker.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Work {
    /// It brings the workload back: it gets the workload's side of the streams.
    #[prost(bool, tag = "1")]
    pub restore: bool,
    /// What to call it with.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub args: Vec<Vec<u8>>,
}

/// Whom a signal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Whom {
    /// The first process.
    First = 0,
    /// The foreground group, as from a terminal.
    Foreground = 1,
    /// All of the tree.
    All = 2,
}

/// A signal.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Signal {
    /// Its number.
    #[prost(int32, tag = "1")]
    pub number: i32,
    /// For whom.
    #[prost(enumeration = "Whom", tag = "2")]
    pub whom: i32,
}

/// What a client wants to hear of.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Attach {
    /// What is written to the terminal, too.
    #[prost(bool, tag = "1")]
    pub terminal: bool,
}

/// A window.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Resize {
    /// Lines.
    #[prost(uint32, tag = "1")]
    pub rows: u32,
    /// Characters a line.
    #[prost(uint32, tag = "2")]
    pub columns: u32,
}

/// How the workload is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    /// The shim's [`super::VERSION`].
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The first process, as the workload sees it; 0: not started yet.
    #[prost(int32, tag = "2")]
    pub first: i32,
    /// How it ended, if it did.
    #[prost(message, optional, tag = "3")]
    pub ended: Option<Ended>,
    /// A worker at work; 0: none.
    #[prost(int32, tag = "4")]
    pub worker: i32,
}

/// The end of a process.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Ended {
    /// As wait(2) gives it: exit status...
    #[prost(int32, tag = "1")]
    pub status: i32,
    /// ...or the signal that killed it.
    #[prost(int32, tag = "2")]
    pub signal: i32,
}

impl Ended {
    /// As shells say it.
    #[must_use]
    pub fn code(self) -> i32 {
        if self.signal == 0 { self.status } else { 128 + self.signal }
    }

    /// As it is written down: never as nothing, which is what a full disk makes of it.
    pub(crate) fn written(self) -> Vec<u8> {
        self.encode_length_delimited_to_vec()
    }

    /// What was written down.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        Self::decode_length_delimited(bytes).ok()
    }
}

/// Names of descriptors, `stdio/0` and so on.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Streams {
    /// In the order of the descriptors.
    #[prost(string, repeated, tag = "1")]
    pub keys: Vec<String>,
    /// To a worker, from a shim that can: more descriptors, behind those.
    #[prost(message, optional, tag = "2")]
    pub watching: Option<Watching>,
}

/// Who watches over the memory of a workload since a snapshot, each by a descriptor.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Watching {
    /// The snapshot.
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    /// In the order of the descriptors.
    #[prost(message, repeated, tag = "2")]
    pub spaces: Vec<Watched>,
}

/// An address space of a snapshot.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Watched {
    /// A process that has it, as it sees itself.
    #[prost(int32, tag = "1")]
    pub pid: i32,
    /// Its number in that snapshot.
    #[prost(uint32, tag = "2")]
    pub space: u32,
    /// By soft-dirty marks; else by write protection.
    #[prost(bool, tag = "3")]
    pub soft_dirty: bool,
    /// What these do not tell of: addresses and frames in turn.
    #[prost(uint64, repeated, tag = "4")]
    pub anchors: Vec<u64>,
}

/// Where the streams stand while the tree does.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Settled {
    /// Length of the log.
    #[prost(uint64, tag = "1")]
    pub log: u64,
    /// How much of the input the workload has read.
    #[prost(uint64, tag = "2")]
    pub input: u64,
    /// The first process, as the workload sees it: other roots of the tree are orphans.
    #[prost(int32, tag = "3")]
    pub first: i32,
}

/// Why something cannot be had, over the wire.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Fault {
    /// For the exit code.
    #[prost(enumeration = "Sort", tag = "1")]
    pub sort: i32,
    /// The whole chain, in one sentence.
    #[prost(string, tag = "2")]
    pub text: String,
    /// What is in the way.
    #[prost(message, repeated, tag = "3")]
    pub obstacles: Vec<Obstacle>,
}

/// [`engine::error::Obstacle`], over the wire.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Obstacle {
    /// Stable word.
    #[prost(string, tag = "1")]
    pub code: String,
    /// The process as it sees itself; 0: no one process's.
    #[prost(int32, tag = "2")]
    pub inner_pid: i32,
    /// As its keeper sees it; 0: it is gone.
    #[prost(int32, tag = "6")]
    pub pid: i32,
    /// What.
    #[prost(string, tag = "3")]
    pub object: String,
    /// Why.
    #[prost(string, tag = "4")]
    pub reason: String,
    /// What to do.
    #[prost(string, tag = "5")]
    pub remedy: String,
}

impl Fault {
    /// One that a sentence says all of.
    #[must_use]
    pub fn new(sort: Sort, text: String) -> Self {
        Self { sort: sort.into(), text, obstacles: Vec::new() }
    }

    /// A failure, with its causes.
    #[must_use]
    pub fn of(error: &crate::Error) -> Self {
        use engine::error::Error::Refused;
        if let crate::Error::Told(fault) = error {
            return fault.as_ref().clone();
        }
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(next) = cause {
            text = format!("{text}: {next}");
            cause = next.source();
        }
        let obstacles = match error {
            crate::Error::Engine(Refused(all))
            | crate::Error::AfterRollBack { cause: Refused(all), .. } => {
                all.iter().map(Obstacle::of).collect()
            }
            _ => Vec::new(),
        };
        Self { sort: error.sort().into(), text, obstacles }
    }
}

impl Obstacle {
    /// The engine's, as it is sent.
    #[must_use]
    pub fn of(found: &engine::error::Obstacle) -> Self {
        let pid = found.pid.map_or(0, |pid| pid.0);
        Self {
            code: found.cause.code.to_owned(),
            inner_pid: pid,
            pid,
            object: found.object.clone(),
            reason: found.cause.reason.to_owned(),
            remedy: found.cause.remedy.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_could_not_be_written_is_no_normal_end() {
        for ended in [Ended::default(), Ended { status: 3, signal: 0 }] {
            assert_eq!(Ended::read(&ended.written()), Some(ended));
        }
        assert_eq!(Ended::read(&[]), None);
    }
}
