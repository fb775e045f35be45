//! The messages. Tags are never reused.
use prost::Message;

use crate::files::Files;
use crate::open_file::OpenFile;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Image {
    #[prost(uint32, tag = "1")]
    pub(super) version: u32,
    #[prost(message, optional, tag = "2")]
    pub(super) machine: Option<Machine>,
    #[prost(message, optional, tag = "3")]
    pub(super) clocks: Option<Clocks>,
    #[prost(message, repeated, tag = "4")]
    pub(super) processes: Vec<Process>,
    #[prost(message, repeated, tag = "5")]
    pub(super) threads: Vec<Thread>,
    #[prost(message, repeated, tag = "6")]
    pub(super) spaces: Vec<Space>,
    #[prost(message, repeated, tag = "7")]
    pub(super) filesystems: Vec<Fs>,
    #[prost(message, repeated, tag = "8")]
    pub(super) objects: Vec<Object>,
    #[prost(message, repeated, tag = "9")]
    pub(super) open_files: Vec<NumberedFile>,
    #[prost(message, repeated, tag = "10")]
    pub(super) descriptors: Vec<Descriptor>,
    #[prost(message, repeated, tag = "11")]
    pub(super) attributes: Vec<Attribute>,
    #[prost(message, optional, tag = "12")]
    pub(super) files: Option<Files>,
    #[prost(message, repeated, tag = "13")]
    pub(super) notes: Vec<Note>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Machine {
    #[prost(string, tag = "1")]
    pub(super) architecture: String,
    #[prost(string, tag = "2")]
    pub(super) kernel: String,
    #[prost(uint64, tag = "3")]
    pub(super) xfeatures: u64,
    #[prost(uint32, tag = "4")]
    pub(super) xsave_bytes: u32,
    #[prost(string, repeated, tag = "5")]
    pub(super) flags: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Clocks {
    #[prost(int64, tag = "1")]
    pub(super) monotonic: i64,
    #[prost(int64, tag = "2")]
    pub(super) boottime: i64,
    #[prost(int64, tag = "3")]
    pub(super) realtime: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Process {
    #[prost(int32, tag = "1")]
    pub(super) pid: i32,
    #[prost(int32, optional, tag = "2")]
    pub(super) ppid: Option<i32>,
    #[prost(int32, tag = "3")]
    pub(super) pgid: i32,
    #[prost(int32, tag = "4")]
    pub(super) sid: i32,
    #[prost(int32, tag = "5")]
    pub(super) exit_signal: i32,
    #[prost(message, optional, tag = "6")]
    pub(super) stopped: Option<Stopped>,
    /// The status of a zombie.
    #[prost(int32, optional, tag = "7")]
    pub(super) exit_code: Option<i32>,
    #[prost(string, tag = "8")]
    pub(super) comm: String,
    #[prost(uint32, tag = "9")]
    pub(super) files_id: u32,
    #[prost(uint32, tag = "10")]
    pub(super) vm_id: u32,
    #[prost(uint32, tag = "11")]
    pub(super) fs_id: u32,
    #[prost(int32, repeated, tag = "12")]
    pub(super) threads: Vec<i32>,
    /// Its parent has yet to hear that it goes on.
    #[prost(bool, tag = "13")]
    pub(super) continued: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Stopped {
    #[prost(int32, tag = "1")]
    pub(super) signal: i32,
    #[prost(bool, tag = "2")]
    pub(super) unreported: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Thread {
    #[prost(int32, tag = "1")]
    pub(super) tid: i32,
    #[prost(fixed64, repeated, tag = "2")]
    pub(super) gpregs: Vec<u64>,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) xsave: Vec<u8>,
    #[prost(fixed64, tag = "4")]
    pub(super) blk_sigset: u64,
    #[prost(message, optional, tag = "5")]
    pub(super) rseq: Option<Rseq>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Rseq {
    #[prost(uint64, tag = "1")]
    pub(super) address: u64,
    #[prost(uint32, tag = "2")]
    pub(super) size: u32,
    #[prost(uint32, tag = "3")]
    pub(super) signature: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Space {
    #[prost(uint32, tag = "1")]
    pub(super) id: u32,
    #[prost(message, repeated, tag = "2")]
    pub(super) vmas: Vec<Vma>,
    #[prost(uint64, repeated, tag = "3")]
    pub(super) layout: Vec<u64>,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) saved_auxv: Vec<u8>,
    #[prost(uint32, tag = "5")]
    pub(super) exe_file_id: u32,
    #[prost(bytes = "vec", tag = "6")]
    pub(super) vdso: Vec<u8>,
    /// Starts and ends, in turn.
    #[prost(uint64, repeated, tag = "7")]
    pub(super) written: Vec<u64>,
    /// Likewise.
    #[prost(uint64, repeated, tag = "8")]
    pub(super) guards: Vec<u64>,
    /// Likewise.
    #[prost(uint64, repeated, tag = "9")]
    pub(super) huge: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Vma {
    #[prost(uint64, tag = "1")]
    pub(super) start: u64,
    #[prost(uint64, tag = "2")]
    pub(super) end: u64,
    #[prost(int32, tag = "3")]
    pub(super) prot: i32,
    #[prost(bool, tag = "4")]
    pub(super) shared: bool,
    /// Neither this nor `special`: anonymous.
    #[prost(uint32, optional, tag = "5")]
    pub(super) file: Option<u32>,
    #[prost(uint64, tag = "6")]
    pub(super) pgoff: u64,
    #[prost(string, optional, tag = "7")]
    pub(super) special: Option<String>,
    #[prost(string, repeated, tag = "8")]
    pub(super) flags: Vec<String>,
    #[prost(string, optional, tag = "9")]
    pub(super) name: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Fs {
    #[prost(uint32, tag = "1")]
    pub(super) id: u32,
    #[prost(uint32, tag = "2")]
    pub(super) cwd_id: u32,
    #[prost(uint32, tag = "3")]
    pub(super) root_id: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Object {
    #[prost(uint32, tag = "1")]
    pub(super) id: u32,
    #[prost(string, tag = "2")]
    pub(super) kind: String,
    /// Built inside this process; by the coordinator, if absent.
    #[prost(int32, optional, tag = "3")]
    pub(super) place: Option<i32>,
    #[prost(uint32, repeated, tag = "4")]
    pub(super) needs: Vec<u32>,
    #[prost(bytes = "vec", tag = "5")]
    pub(super) state: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NumberedFile {
    #[prost(uint32, tag = "1")]
    pub(super) id: u32,
    #[prost(message, optional, tag = "2")]
    pub(super) file: Option<OpenFile>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Descriptor {
    #[prost(uint32, tag = "1")]
    pub(super) files_id: u32,
    #[prost(int32, tag = "2")]
    pub(super) fd: i32,
    #[prost(uint32, tag = "3")]
    pub(super) file: u32,
    #[prost(bool, tag = "4")]
    pub(super) cloexec: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Attribute {
    #[prost(int32, tag = "1")]
    pub(super) pid: i32,
    /// Of the process as a whole, if absent.
    #[prost(int32, optional, tag = "2")]
    pub(super) tid: Option<i32>,
    #[prost(string, tag = "3")]
    pub(super) name: String,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) state: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Note {
    #[prost(int32, optional, tag = "1")]
    pub(super) pid: Option<i32>,
    #[prost(string, tag = "2")]
    pub(super) text: String,
}
