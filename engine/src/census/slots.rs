//! What the kernel knows of all descriptors of a process at once.
//!
//! To be told of one takes a file in /proc, kcmp(2) and lstat(2), some ten microseconds; a BPF program of ours
//! copies what these would tell in a third of one. It shows the file system's own inode: what that says is what
//! stat(2) says on file systems that are known not to make it up ([`is_plain`]).
//!
//! Kernel: `kernel/bpf/task_iter.c`, `include/linux/fs.h`, `include/linux/filelock.h`.
use std::cell::RefCell;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use nix::libc::O_CLOEXEC;
use nix::sys::stat::FileStat;

use super::btf::{Place, Types};
use super::writer::{CONTEXT, R8 as FILE, R9 as INODE, TASK, Writer, op};
use super::{DESCRIPTION, iterate};
use crate::inventory::Pid;
use crate::sys::bpf::{self, Instruction, Whom};

/// `bpf_iter__task_file`: what iterates, the task, the number, the file.
const OF_TASK: i16 = 8;
const OF_NUMBER: i16 = 16;
const OF_FILE: i16 = 24;

/// `I_CTIME_QUERIED` of `include/linux/fs.h`, since 6.13: somebody was told of this time, so that the next
/// change has another one.
const TOLD: u64 = 1 << 31;

/// Of `struct file`: where it stands, how it is open, who is signalled (a pointer, since 6.12), by which mount it
/// was found.
const OF_OPEN_FILE: [&str; 4] = ["f_pos", "f_flags", "f_owner", "f_path.mnt"];
/// Of `struct inode`: what stat(2) tells.
const OF_INODE: [&str; 11] = [
    "i_mode",
    "i_uid",
    "i_gid",
    "i_nlink",
    "i_size",
    "i_atime_sec",
    "i_atime_nsec",
    "i_mtime_sec",
    "i_mtime_nsec",
    "i_ctime_sec",
    "i_ctime_nsec",
];

/// Words of a row before those fields.
const NUMBER: usize = 0;
const TABLE: usize = 1;
const CLOSED: usize = 2;
const ADDRESS: usize = 3;
/// Where the kernel has the locks of an inode, and where each list of them leads.
const LOCKS: usize = 4;
const LISTS: usize = 5;
const FIELDS: usize = 8;
const WORDS: usize = FIELDS + OF_OPEN_FILE.len() + OF_INODE.len();
const BYTES: usize = 8 * WORDS;

/// Which file systems keep in their inodes what they tell: tmpfs, ext4, xfs, btrfs
/// (`include/uapi/linux/magic.h`).
pub(crate) fn is_plain(filesystem: i64) -> bool {
    [0x0102_1994, 0xef53, 0x5846_5342, 0x9123_683e].contains(&filesystem)
}

/// A descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) number: RawFd,
    pub(crate) cloexec: bool,
    pub(crate) position: i64,
    pub(crate) shown: Shown,
}

/// Of its open file all but the position, and of the inode all that stat(2) tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Where the kernel has it.
    address: u64,
    flags: u64,
    owner: u64,
    mount: u64,
    /// Somebody has a lock or a lease.
    locked: bool,
    inode: [u64; OF_INODE.len()],
}

impl Shown {
    /// The flags, as `F_GETFL` tells them, less the descriptor's own.
    pub(crate) fn flags(&self) -> Option<i32> {
        u32::try_from(self.flags).ok().map(|flags| flags.cast_signed() & !O_CLOEXEC)
    }

    /// Whether nothing is to be told of it but flags and position, and `stat` is what is so, and any change
    /// after that will be another time of change.
    pub(crate) fn is_told_by(&self, stat: &FileStat) -> bool {
        let [mode, user, group, links, size, atime, atime_ns, mtime, mtime_ns, ctime, ctime_ns] =
            self.inode;
        let inode = [links, size, atime, atime_ns, mtime, mtime_ns, ctime, ctime_ns ^ TOLD];
        let signed = [
            stat.st_size,
            stat.st_atime,
            stat.st_atime_nsec,
            stat.st_mtime,
            stat.st_mtime_nsec,
            stat.st_ctime,
            stat.st_ctime_nsec,
        ];
        let told = [stat.st_nlink].into_iter().chain(signed.map(i64::cast_unsigned));
        let whose = [mode, user, group];
        let plain = self.owner == 0 && !self.locked;
        // Where times are whole seconds, two changes may have the same.
        let fine = stat.st_ctime_nsec != 0;
        plain
            && fine
            && told.eq(inode)
            && whose == [stat.st_mode, stat.st_uid, stat.st_gid].map(u64::from)
    }
}

impl Slot {
    /// From a row; and whose table it is of. `lists` is where lists of locks are within what has them.
    fn decode(bytes: &[u8; BYTES], lists: [u64; 3]) -> Option<(u64, Self)> {
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        let [
            number,
            table,
            closed,
            address,
            locks,
            a,
            b,
            c,
            position,
            flags,
            owner,
            mount,
            inode @ ..,
        ] = words;
        // A list leads to itself if there is nothing in it.
        let empty = lists.map(|list| list + locks) == [a, b, c];
        let shown = Shown { address, flags, owner, mount, locked: locks != 0 && !empty, inode };
        let number = RawFd::try_from(number).ok()?;
        let (cloexec, position) = (closed >> (number % 64) & 1 != 0, position.cast_signed());
        Some((table, Self { number, cloexec, position, shown }))
    }
}

/// The program that copies all this of a descriptor.
fn program(types: &Types<'_>, lists: [Place; 3]) -> Option<Vec<Instruction>> {
    let mut writer = Writer::new(WORDS);
    writer.begin();
    writer.shown(TASK, OF_TASK);
    writer.shown(FILE, OF_FILE);
    writer.store(FILE, ADDRESS)?;
    for (word, name) in (FIELDS..).zip(OF_OPEN_FILE) {
        writer.keep(FILE, types.field("file", name)?, word)?;
    }
    writer.fetch(INODE, FILE, types.field("file", "f_inode")?)?;
    for (word, name) in (FIELDS + OF_OPEN_FILE.len()..).zip(OF_INODE) {
        writer.keep(INODE, types.field("inode", name)?, word)?;
    }
    writer.fetch(INODE, INODE, types.field("inode", "i_flctx")?)?;
    writer.store(INODE, LOCKS)?;
    for (word, list) in (LISTS..).zip(lists) {
        writer.keep(INODE, Place { bytes: 8, ..list }, word)?;
    }
    writer.fetch(TASK, TASK, types.field("task_struct", "files")?)?;
    writer.store(TASK, TABLE)?;
    writer.fetch(TASK, TASK, types.field("files_struct", "fdt")?)?;
    writer.fetch(TASK, TASK, types.field("fdtable", "close_on_exec")?)?;
    // Of its bits, the word in which there is this number's.
    writer.put(op::LOAD_HALF, INODE, CONTEXT, OF_NUMBER, 0);
    writer.store(INODE, NUMBER)?;
    writer.put(op::DOWN_VALUE, INODE, 0, 0, 6);
    writer.put(op::UP_VALUE, INODE, 0, 0, 3);
    writer.put(op::ADD, INODE, TASK, 0, 0);
    writer.copy(INODE, Place { offset: 0, bytes: 8 }, CLOSED)?;
    writer.finish()
}

/// Ready to look at processes.
#[derive(Debug)]
pub(crate) struct Slots {
    program: OwnedFd,
    lists: [u64; 3],
}

impl Slots {
    /// `None`: the kernel cannot, or does not let us, or does not tell of each change.
    #[tracing::instrument(level = "trace", skip_all)]
    pub(crate) fn prepare() -> Option<Self> {
        let bytes = std::fs::read(DESCRIPTION).ok()?;
        let types = Types::parse(&bytes)?;
        // Before, it was a structure.
        types.field("file", "f_owner").filter(|owner| owner.bytes == 8)?;
        let [flock, posix, lease] = ["flc_flock", "flc_posix", "flc_lease"]
            .map(|list| types.field("file_lock_context", list));
        let lists = [flock?, posix?, lease?];
        let code = program(&types, lists)?;
        let program = bpf::load(&code, types.function("bpf_iter_task_file")?).ok()?;
        Some(Self { program, lists: lists.map(|list| list.offset as u64) })
    }

    /// Two looks at a process, each once, that may show so many descriptors.
    pub(crate) fn of(&self, pid: Pid, expected: usize) -> Option<[Look; 2]> {
        let link = bpf::attach(self.program.as_fd(), Whom::Process(pid.0)).ok()?;
        let look = || {
            // Pages that are there already need not be made in a pause.
            let room = RefCell::new(vec![1; BYTES * (expected + MORE)]);
            Some(Look { ready: iterate(&link)?, lists: self.lists, room })
        };
        Some([look()?, look()?])
    }
}

/// So many descriptors may have been opened since.
const MORE: usize = 64;

/// Ready to look at one process.
#[derive(Debug)]
pub(crate) struct Look {
    ready: File,
    lists: [u64; 3],
    room: RefCell<Vec<u8>>,
}

impl Look {
    /// All its descriptors, ascending. `None`: it cannot be told, or its threads have tables of their own.
    #[tracing::instrument(level = "trace", skip_all)]
    pub(crate) fn take(&self) -> Option<Vec<Slot>> {
        let mut bytes = self.room.take();
        bytes.clear();
        (&self.ready).read_to_end(&mut bytes).ok()?;
        let (rows, rest) = bytes.as_chunks();
        let (mut slots, mut table) = (Vec::with_capacity(rows.len()), None);
        for row in rows {
            let (whose, slot) = Slot::decode(row, self.lists)?;
            slots.push(slot);
            if *table.get_or_insert(whose) != whose {
                return None;
            }
        }
        // A process without any may as well be asked; so is whoever was looked at already.
        let ascend = !slots.is_empty() && slots.is_sorted_by(|one, next| one.number < next.number);
        (rest.is_empty() && ascend).then_some(slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::{Batch, Caller};
    use crate::sys::here::Here;
    use crate::sys::kernel_at_least;
    use nix::fcntl::{FcntlArg, Flock, FlockArg, OFlag, fcntl};
    use nix::libc;
    use nix::sys::stat::fstat;
    use std::io::{Seek, SeekFrom, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;

    fn me() -> Pid {
        Pid(std::process::id().cast_signed())
    }

    /// Of each change only kernels since 6.13 tell.
    fn slots() -> Option<Slots> {
        let slots = Slots::prepare();
        assert_eq!(slots.is_some(), kernel_at_least(6, 12));
        slots.filter(|_| kernel_at_least(6, 13))
    }

    fn look_at(slots: &Slots, file: &File) -> Slot {
        let [look, _] = slots.of(me(), 64).unwrap();
        let all = look.take().unwrap();
        *all.iter().find(|slot| slot.number == file.as_raw_fd()).unwrap()
    }

    #[test]
    fn a_descriptor_is_shown_as_its_calls_tell_it() {
        let Some(slots) = slots() else { return };
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"hello").unwrap();
        file.seek(SeekFrom::Start(3)).unwrap();
        let slot = look_at(&slots, &file);
        let flags = fcntl(&file, FcntlArg::F_GETFL).unwrap();
        assert_eq!(slot.shown.flags(), Some(flags & !O_CLOEXEC));
        assert_eq!((slot.position, slot.cloexec), (3, true));
        fcntl(&file, FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
        assert!(!look_at(&slots, &file).cloexec);
        let stat = fstat(&file).unwrap();
        assert!(look_at(&slots, &file).shown.is_told_by(&stat));
        file.write_all(b"there").unwrap();
        assert!(!look_at(&slots, &file).shown.is_told_by(&stat), "nobody was told of this time");
    }

    /// Times tick with the jiffy, but for those that somebody was told of.
    #[test]
    fn each_change_shows_at_once() {
        let Some(slots) = slots() else { return };
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"a", 0).unwrap();
        for _ in 0..300 {
            let stat = fstat(&file).unwrap();
            let before = look_at(&slots, &file);
            assert!(before.shown.is_told_by(&stat));
            assert_eq!(look_at(&slots, &file), before);
            file.write_all_at(b"b", 0).unwrap();
            assert_ne!(look_at(&slots, &file).shown, before.shown);
        }
    }

    #[test]
    fn whom_more_is_to_be_told_of_is_not_told_by_its_stat() {
        let Some(slots) = slots() else { return };
        let file = tempfile::NamedTempFile::new().unwrap();
        let (file, other) = (file.as_file(), file.reopen().unwrap());
        file.write_all_at(b"a", 0).unwrap();
        let is_told = || {
            let stat = fstat(file).unwrap();
            look_at(&slots, file).shown.is_told_by(&stat)
        };
        assert!(is_told());
        let lock = Flock::lock(other, FlockArg::LockShared).unwrap();
        assert!(!is_told(), "locked through another open file");
        drop(lock.unlock().unwrap());
        assert!(is_told());
        let before = look_at(&slots, file).shown;
        fcntl(file, FcntlArg::F_SETFL(OFlag::O_APPEND)).unwrap();
        assert_ne!(look_at(&slots, file).shown, before);
        let mut batch = Batch::default();
        let fd = file.as_raw_fd().into();
        batch.call("fcntl", libc::SYS_fcntl, [fd, libc::F_SETOWN.into(), me().0.into()]);
        Here.perform(&batch).unwrap()[0].value().unwrap();
        assert!(!is_told(), "somebody would be signalled");
    }

    #[test]
    fn one_look_is_all() {
        let Some(slots) = slots() else { return };
        let [look, _] = slots.of(me(), 1).unwrap();
        assert!(look.take().is_some_and(|all| !all.is_empty()));
        assert!(look.take().is_none());
    }
}
