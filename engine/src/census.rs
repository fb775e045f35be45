//! What the kernel knows of all threads at once, told without running any of them.
//!
//! Much of a thread is told only to itself (`sigaltstack(2)`, `PR_GET_TID_ADDRESS`): so each was lent out, which
//! takes some 100 us, and a pause of a tenth of a second for a program of 1,000 threads. Where the
//! kernel describes its types (`/sys/kernel/btf`) and lets us (`CAP_BPF`, `CAP_PERFMON`), a BPF program of ours
//! copies the fields that matter for every task, in less than a microsecond each.
//!
//! Few fields are understood: of most it is enough to see that a thread has the same as its leader, which is
//! asked as ever. Then its answers would be the leader's. Whoever differs is lent out.
//!
//! Preparing takes some milliseconds of our own, before the pause: worth it for many threads. Kernel:
//! `kernel/bpf/task_iter.c`, `include/linux/sched.h`.
mod btf;
mod calibrate;
mod program;
pub(crate) mod slots;
mod writer;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use self::btf::Types;
use self::calibrate::Marks;
use self::program::{FIELDS, NAMESPACE, Numbers, OWN_NUMBER, READER};
use crate::inventory::Tid;
use crate::sys::bpf::{self, Whom};

const DESCRIPTION: &str = "/sys/kernel/btf/vmlinux";

/// What the rows of some hundred threads fit in.
const ROOM: usize = 256 << 10;

/// A field of `struct task_struct`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Fact {
    /// In the initial PID namespace.
    GlobalNumber,
    /// Its subjective credentials, as an address: threads share one object until one changes its own.
    Credentials,
    /// Likewise, objective ones.
    RealCredentials,
    /// Its descriptors.
    Table,
    /// Its working directory, root and umask.
    FileSystem,
    /// Its namespaces.
    Namespaces,
    /// Its control groups, as the address of all of them.
    ControlGroups,
    /// `PF_*`: those of how it is killed when its memory is found broken, and of flushing.
    Flags,
    /// `TIF_*`: those of which instructions it may use.
    InfoFlags,
    /// What happens at system calls: filters, dispatching.
    SyscallWork,
    /// `PFA_*`: no new privileges, speculation.
    AtomicFlags,
    /// Its execution domain.
    Personality,
    /// How late its timers may be.
    TimerSlack,
    /// What it gets when its parent dies.
    ParentDeathSignal,
    /// Whether it has given up system calls.
    Seccomp,
    /// Which signals wait for it alone.
    PendingSignals,
    /// Its own policy for memory, as an address.
    MemoryPolicy,
    /// Features of x86 threads: shadow stacks.
    ThreadFeatures,
    /// Where it handles signals.
    AlternateStack,
    /// How large that is.
    AlternateStackBytes,
    /// What was asked for besides.
    AlternateStackFlags,
    /// Where the kernel writes a zero when it ends.
    ClearChildTid,
    /// The futexes that the kernel then releases.
    RobustList,
    /// Two words.
    Name,
}

/// Where each is, in the order of [`Fact`].
const PATHS: [&str; 24] = [
    "pid",
    "cred",
    "real_cred",
    "files",
    "fs",
    "nsproxy",
    "cgroups",
    "flags",
    "thread_info.flags",
    "thread_info.syscall_work",
    "atomic_flags",
    "personality",
    "timer_slack_ns",
    "pdeath_signal",
    "seccomp.mode",
    "pending.signal",
    "mempolicy",
    "thread.features",
    "sas_ss_sp",
    "sas_ss_size",
    "sas_ss_flags",
    "clear_child_tid",
    "robust_list",
    "comm",
];

/// The words of a row: the last fact has two.
const WORDS: usize = FIELDS + PATHS.len() + 1;

/// What must be the same, besides what attributes say, for one thread to stand for another.
const ALWAYS: [Fact; 4] = [Fact::Table, Fact::FileSystem, Fact::Namespaces, Fact::SyscallWork];

/// All of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row([u64; WORDS]);

impl Row {
    fn word(&self, at: usize) -> u64 {
        self.0.get(at).copied().unwrap_or_default()
    }

    /// One fact.
    pub(crate) fn fact(&self, fact: Fact) -> u64 {
        self.word(FIELDS + fact as usize)
    }

    /// Its name, zeros behind.
    pub(crate) fn name(&self) -> [u8; 16] {
        let words = [0, 1].map(|word| self.word(FIELDS + Fact::Name as usize + word));
        let mut name = [0; 16];
        name.as_chunks_mut().0.copy_from_slice(&words.map(u64::to_ne_bytes));
        name
    }

    /// Whether these facts are the same of both, and what no attribute tells.
    pub(crate) fn is_like(&self, other: &Self, facts: &[Fact]) -> bool {
        facts.iter().chain(&ALWAYS).all(|fact| self.fact(*fact) == other.fact(*fact))
    }

    /// Of a fact, nothing but these bits.
    fn keep(&mut self, fact: Fact, bits: u64) {
        if let Some(word) = self.0.get_mut(FIELDS + fact as usize) {
            *word &= bits;
        }
    }

    fn is_reader(&self) -> bool {
        self.word(READER) == self.fact(Fact::GlobalNumber)
    }

    fn decode(bytes: &[u8; 8 * WORDS]) -> Self {
        let mut row = [0; WORDS];
        for (word, bytes) in row.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        Self(row)
    }
}

/// Ready to look.
#[derive(Debug)]
pub(crate) struct Census {
    marks: Marks,
    /// Reading it is one look.
    ready: File,
}

impl Census {
    /// Prepares one. `None`: the kernel cannot, or does not let us.
    #[tracing::instrument(level = "trace", skip_all)]
    pub(crate) fn prepare() -> Option<Self> {
        let program = load()?;
        let link = bpf::attach(program.as_fd(), Whom::All).ok()?;
        let us = nix::unistd::gettid().as_raw();
        // Older kernels show all or nobody.
        let only_us = bpf::attach(program.as_fd(), Whom::Thread(us)).ok();
        let only_us = only_us.as_ref().unwrap_or(&link);
        let look = || ourselves(&rows(&mut iterate(only_us)?)?);
        let marks = Marks::find(look)?;
        let ready = iterate(&link)?;
        Some(Self { marks, ready })
    }

    /// Looks at every thread of our PID namespace; once.
    #[tracing::instrument(level = "trace", skip_all)]
    pub(crate) fn take(&mut self) -> Option<BTreeMap<Tid, Row>> {
        let rows = rows(&mut self.ready)?;
        let here = ourselves(&rows)?.word(NAMESPACE);
        let ours = rows.into_iter().filter(|row| row.word(NAMESPACE) == here);
        let numbered = |mut row: Row| {
            self.marks.apply(&mut row);
            Some((Tid(i32::try_from(row.word(OWN_NUMBER)).ok()?), row))
        };
        Some(ours.filter_map(numbered).collect())
    }
}

fn iterate(link: &OwnedFd) -> Option<File> {
    bpf::iterate(link.as_fd()).ok().map(File::from)
}

fn rows(file: &mut File) -> Option<Vec<Row>> {
    let mut bytes = Vec::with_capacity(ROOM);
    file.read_to_end(&mut bytes).ok()?;
    let (rows, rest) = bytes.as_chunks();
    rest.is_empty().then(|| rows.iter().map(Row::decode).collect())
}

/// Ours, who read them.
fn ourselves(rows: &[Row]) -> Option<Row> {
    rows.iter().find(|row| row.is_reader()).copied()
}

fn load() -> Option<OwnedFd> {
    let bytes = std::fs::read(DESCRIPTION).ok()?;
    let types = Types::parse(&bytes)?;
    let numbers = Numbers {
        thread_pid: types.field("task_struct", "thread_pid")?,
        level: types.field("pid", "level")?,
        first: types.field("pid", "numbers")?,
        each_bytes: types.bytes_of("upid")?,
        number: types.field("upid", "nr")?,
        namespace: types.field("upid", "ns")?,
    };
    let place = |path: &&str| match types.field("task_struct", path) {
        Some(place) => Some(Some(place)),
        // What this kernel does not have, nobody has.
        None => calibrate::is_unknown(path).then_some(None),
    };
    let fields = PATHS.iter().map(place).collect::<Option<Vec<_>>>()?;
    let code = program::program(&numbers, &fields, WORDS)?;
    bpf::load(&code, types.function("bpf_iter_task")?).ok()
}

#[cfg(test)]
mod tests;
