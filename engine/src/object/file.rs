//! Regular files: by name, with what is needed to notice that somebody changed them; contents and all
//! where no name is left.
//!
//! What the tree may write to is captured and rolled back by [`crate::files`]; here such a file is
//! only opened, after that. A file that is only read, or mapped, must still be what it was: same size
//! and time, or the same build ID. Links: `fs/d_path.c`.
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::libc::{S_IFREG, major};
use nix::sys::stat::{FileStat, Mode, fstat, stat};

use super::named::{self, Causes, Named, reopen};
use super::{
    Build, Check, Claim, Collect, Ends, Evidence, Identity, Inode, Missing, Object, View, build_id,
};
use crate::error::{Cause, Result, kernel, kernel_io};
use crate::inventory::{End, ObjectRecord};

pub(super) struct Regular;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    #[prost(message, required, tag = "1")]
    named: Named,
    #[prost(uint64, tag = "2")]
    size: u64,
    /// Seconds and nanoseconds of `st_mtime`.
    #[prost(int64, tag = "3")]
    modified: i64,
    #[prost(int64, tag = "4")]
    modified_nanos: i64,
    /// Of an ELF file that is only read.
    #[prost(bytes = "vec", tag = "5")]
    build_id: Vec<u8>,
    /// Some open file or mapping may write to it.
    #[prost(bool, tag = "6")]
    written: bool,
    /// Which inode it was, for those who look at it before the tree runs on; zero without a name.
    #[prost(uint64, tag = "7")]
    device: u64,
    #[prost(uint64, tag = "8")]
    inode: u64,
    /// It has had no name yet (`O_TMPFILE`), and may be given one: the flags it was opened by.
    #[prost(int32, tag = "9")]
    nameless: i32,
}

/// A regular file that has a name, as [`crate::files`] wants to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedFile {
    /// Names under which it can be found; at least one.
    pub(super) paths: Vec<PathBuf>,
    /// Which inode it was.
    pub(super) inode: Inode,
}

/// What `record` says, if it is of a regular file that has a name.
pub(super) fn named_file(record: &ObjectRecord) -> Option<NamedFile> {
    if record.kind != Regular::NAME {
        return None;
    }
    let state = <State as prost::Message>::decode(record.state.as_slice()).ok()?;
    let paths: Vec<_> = state.named.living().map(Path::to_owned).collect();
    let inode = Inode { device: state.device, number: state.inode };
    (!paths.is_empty()).then_some(NamedFile { paths, inode })
}

const NAMES: Causes = named::causes!("file");
const CHANGED: Cause = Cause {
    code: "file:changed",
    reason: "it is not what it was when the snapshot was taken",
    remedy: "put the old version back, or take it as it is with --accept-changed",
};

/// File systems without a block device that keep what is written to them
/// (`include/uapi/linux/magic.h`): tmpfs, ramfs, overlayfs, btrfs, NFS, SMB 1 to 3, FUSE (virtiofs
/// too), 9p, ZFS, Ceph, bcachefs, hugetlbfs, eCryptfs, AFS, JFFS2, UBIFS. Everything else without a
/// device is made up by the kernel as one looks at it.
const KEEPING: &[i64] = &[
    0x0102_1994,
    0x8584_58f6,
    0x794c_7630,
    0x9123_683e,
    0x6969,
    0x517b,
    0xff53_4d42,
    0xfe53_4d42,
    0x6573_5546,
    0x0102_1997,
    0x2fc1_2fc1,
    0x00c3_6400,
    0xca45_1a4e,
    0x9584_58f6,
    0xf15f,
    0x6b41_4653,
    0x72b6,
    0x2405_1905,
];

/// Whether what is seen lives on a file system that keeps things, rather than one like /proc.
pub(super) fn is_kept(seen: &Evidence) -> bool {
    seen.has_path() && !seen.is_memory() && keeps(seen.inode.device, seen.filesystem)
}

/// Whether a file system does, by its device and its magic number.
pub(crate) fn keeps(device: u64, filesystem: i64) -> bool {
    major(device) != 0 || KEEPING.contains(&filesystem)
}

impl Object for Regular {
    const NAME: &'static str = "file";
    const CAUSES: &'static [Cause] = &[NAMES.hidden, NAMES.renamed, NAMES.missing, CHANGED];
    type State = State;

    fn claims(seen: &Evidence) -> Option<Claim> {
        let claim = Claim { identity: Identity::Inode(seen.inode), end: named::end(seen) };
        (seen.is(S_IFREG) && is_kept(seen)).then_some(claim)
    }

    fn collect(with: &mut Collect<'_>) -> Result<State> {
        let named = Named::collect(with, &NAMES)?;
        let Some((_, any)) = with.files.first() else { return Ok(State::default()) };
        let stat = fstat(any).map_err(kernel("fstat"))?;
        let written = with.files.iter().map(|(_, fd)| may_write(fd.as_fd()));
        let written = written.collect::<Result<Vec<_>>>()?.contains(&true);
        let mut state = State { named, written, ..sized(&stat) };
        if state.named.is_gone() {
            with.keep_file(reopen(any.as_fd(), OFlag::O_RDONLY)?);
            state.nameless = nameless(with.files.iter().map(|(_, fd)| fd.as_fd()))?;
        } else {
            (state.device, state.inode) = (stat.st_dev, stat.st_ino);
            if !written {
                state.build_id = build_id::of(&File::from(reopen(any.as_fd(), OFlag::O_RDONLY)?));
            }
        }
        Ok(state)
    }

    /// A file that was removed since, and put back, is another inode.
    fn comparable(state: State) -> State {
        State { device: 0, inode: 0, ..state }
    }

    fn check(state: &State, with: &Check) -> Vec<Missing> {
        let mut missing = state.named.check(S_IFREG, *with, &NAMES);
        let put_back = state.named.living().any(|path| with.is_put_back(path));
        let trusted = state.written || put_back || with.accept_changed;
        let living = state.named.living().next().filter(|_| missing.is_empty() && !trusted);
        if let Some(path) = living.filter(|path| !state.is_still(path)) {
            missing.push(Missing { object: path.display().to_string(), cause: CHANGED });
        }
        missing
    }

    fn build(state: &State, with: &mut Build<'_>) -> Result<Ends> {
        let fill = |made: BorrowedFd<'_>| {
            let file = File::from(reopen(made, OFlag::O_RDWR)?);
            file.set_len(state.size).map_err(kernel_io("ftruncate"))?;
            with.fill(file.as_fd())
        };
        match OFlag::from_bits_retain(state.nameless) {
            flags if flags.is_empty() => state.named.build(&NAMES, make, fill),
            flags => state.named.build_nameless(flags, fill),
        }
    }

    fn view(state: &State, end: End) -> View {
        state.named.view(end)
    }
}

impl State {
    /// Whether the file at `path` is what was seen, as far as one can tell without reading it.
    fn is_still(&self, path: &Path) -> bool {
        let Ok(now) = stat(path) else { return false };
        let now = sized(&now);
        let key = |state: &Self| (state.size, state.modified, state.modified_nanos);
        let same_build = || {
            let id = File::open(path).map(|file| build_id::of(&file)).unwrap_or_default();
            !id.is_empty() && id == self.build_id
        };
        key(&now) == key(self) || (now.size == self.size && same_build())
    }
}

fn sized(stat: &FileStat) -> State {
    State {
        size: stat.st_size.unsigned_abs(),
        modified: stat.st_mtime,
        modified_nanos: stat.st_mtime_nsec,
        ..State::default()
    }
}

fn may_write(fd: BorrowedFd<'_>) -> Result<bool> {
    let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(kernel("fcntl"))?;
    let flags = OFlag::from_bits_retain(flags);
    Ok(!flags.contains(OFlag::O_PATH) && flags & OFlag::O_ACCMODE != OFlag::O_RDONLY)
}

/// By which flags the first of these was opened that was opened by `O_TMPFILE`.
fn nameless<'a>(files: impl Iterator<Item = BorrowedFd<'a>>) -> Result<i32> {
    for fd in files {
        let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(kernel("fcntl"))?;
        let flags = OFlag::from_bits_retain(flags);
        if flags.contains(OFlag::O_TMPFILE) {
            return Ok((flags & (OFlag::O_TMPFILE | OFlag::O_ACCMODE)).bits());
        }
    }
    Ok(0)
}

fn make(path: &Path) -> nix::Result<()> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    open(path, flags, Mode::S_IRUSR | Mode::S_IWUSR).map(drop::<OwnedFd>)
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;
    use super::*;
    use nix::fcntl::{AT_FDCWD, AtFlags};
    use nix::unistd::linkat;
    use std::ffi::OsStr;
    use std::fs;
    use std::io::{Seek, SeekFrom, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{FileExt, MetadataExt};

    fn ours(path: &Path) -> File {
        let mut file = File::options().read(true).append(true).create(true).open(path).unwrap();
        file.write_all(b"hello").unwrap();
        file.seek(SeekFrom::Start(2)).unwrap();
        file
    }

    #[test]
    fn a_named_file_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        // Names need be no text.
        let path = dir.path().join(OsStr::from_bytes(b"x\xff\n (deleted)"));
        let file = ours(&path);
        let reader = File::open(&path).unwrap();
        let (state, opened) = Bench::default().round_trip::<Regular>(&[file.into(), reader.into()]);
        assert!(state.written && !state.named.is_gone());
        assert_eq!(File::from(opened[0].try_clone().unwrap()).stream_position().unwrap(), 2);
        let seen = Regular::check(&state, &Check::default());
        assert_eq!(seen, [], "what may be written is rolled back, not compared");
        fs::remove_file(&path).unwrap();
        let seen = Regular::check(&state, &Check::default());
        assert_eq!(seen[0].cause.code, "file:missing");
    }

    #[test]
    fn a_file_that_is_read_must_be_what_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, "one").unwrap();
        let state = Bench::default().collect::<Regular>(&[File::open(&path).unwrap().into()]);
        assert_eq!(Regular::check(&state, &Check::default()), []);
        fs::write(&path, "other").unwrap();
        let seen = Regular::check(&state, &Check::default());
        assert_eq!(seen[0].cause.code, "file:changed");
        let accepted = Check { accept_changed: true, ..Check::default() };
        assert_eq!(Regular::check(&state, &accepted), []);
    }

    /// Two names, two open files, both names removed and their directory with them; another file has
    /// one of the names by now. It is one file still, with its holes.
    #[test]
    fn a_deleted_file_stays_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let (sub, other) = (dir.path().join("sub"), dir.path().join("other"));
        fs::create_dir(&sub).unwrap();
        let first = ours(&sub.join("x"));
        fs::hard_link(sub.join("x"), &other).unwrap();
        let second = File::options().write(true).open(&other).unwrap();
        second.write_all_at(b"end", 1 << 20).unwrap();
        fs::remove_dir_all(&sub).unwrap();
        fs::remove_file(&other).unwrap();
        let files = [first.into(), second.into()];
        let (state, opened) = Bench::default().round_trip::<Regular>(&files);
        assert!(state.named.is_gone() && !sub.exists() && !other.exists());
        let seen: Vec<_> = opened.iter().map(|fd| fstat(fd).unwrap()).collect();
        assert_eq!(seen[0].st_ino, seen[1].st_ino);
        assert_eq!((seen[0].st_nlink, seen[0].st_size), (0, (1 << 20) + 3));
        assert!(seen[0].st_blocks < 64, "holes stay holes");

        fs::write(&other, "a newcomer").unwrap();
        let mut bench = Bench::default();
        let state = bench.collect::<Regular>(&files);
        let built = bench.open(&bench.build::<Regular>(&state));
        let mut head = [0; 5];
        File::from(built[0].try_clone().unwrap()).read_exact_at(&mut head, 0).unwrap();
        assert_eq!(&head, b"hello");
        assert_eq!(fs::read_to_string(&other).unwrap(), "a newcomer");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left lying about");
    }

    #[test]
    fn a_name_that_is_gone_while_another_lives_is_linked_for_a_moment() {
        let dir = tempfile::tempdir().unwrap();
        let (gone, lives) = (dir.path().join("gone"), dir.path().join("lives"));
        let file = ours(&gone);
        fs::hard_link(&gone, &lives).unwrap();
        fs::remove_file(&gone).unwrap();
        let (_, opened) = Bench::default().round_trip::<Regular>(&[file.into()]);
        let inode = fs::metadata(&lives).unwrap().ino();
        assert_eq!(fstat(&opened[0]).unwrap().st_ino, inode);
        assert_eq!(fs::metadata(&lives).unwrap().nlink(), 1);
    }

    #[test]
    fn a_file_without_a_name_from_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let flags = OFlag::O_TMPFILE | OFlag::O_RDWR;
        let file = File::from(open(dir.path(), flags, Mode::S_IRUSR).unwrap());
        file.write_all_at(b"x", 0).unwrap();
        let (state, opened) = Bench::default().round_trip::<Regular>(&[file.into()]);
        assert!(state.named.is_gone());
        // It may be given a name still: a program that writes first and links then must be able to.
        let name = dir.path().join("named");
        let path = format!("/proc/self/fd/{}", opened[0].as_raw_fd());
        let follow = AtFlags::AT_SYMLINK_FOLLOW;
        linkat(AT_FDCWD, &*path, AT_FDCWD, &name, follow).unwrap();
        assert_eq!(fs::read(&name).unwrap(), b"x");
    }
}
