//! Shared anonymous memory: an inode that is only ever mapped, by all who inherited it.
//!
//! Kernel: `shmem_zero_setup()` in `mm/shmem.c` (its link is `/dev/zero (deleted)`), and
//! `hugetlb_file_setup()` in `fs/hugetlbfs/inode.c` (`/anon_hugepage (deleted)`, used for private
//! huge pages too). Made again by mapping as much, so that it keeps its link. System V segments look
//! alike, but belong to an IPC namespace: refused here.
use std::os::fd::AsFd;

use nix::fcntl::OFlag;
use nix::sys::stat::fstat;

use super::evidence::HUGETLBFS;
use super::named::reopen;
use super::{Build, Claim, Collect, Ends, Evidence, Identity, Object};
use crate::error::{Cause, Error, Result, kernel};
use crate::procfs::link_of;
use crate::sys::anonymous;

pub(super) struct Shmem;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    #[prost(uint64, tag = "1")]
    size: u64,
    /// Binary logarithm of the size of its huge pages; zero for ordinary ones.
    #[prost(uint32, tag = "2")]
    huge: u32,
}

const SYSV: Cause = Cause {
    code: "shmem:sysv",
    reason: "it is a System V shared memory segment",
    remedy: "use shm_open(3) or mmap(2) instead",
};

impl Object for Shmem {
    const NAME: &'static str = "shmem";
    const CAUSES: &'static [Cause] = &[SYSV];
    type State = State;

    fn claims(seen: &Evidence) -> Option<Claim> {
        let small = seen.shm && seen.link == "/dev/zero (deleted)";
        let sysv = seen.shm && seen.is_called("/SYSV");
        let huge = seen.filesystem == HUGETLBFS && seen.link == "/anon_hugepage (deleted)";
        (small || sysv || huge).then(|| Claim::whole(Identity::Inode(seen.inode)))
    }

    fn collect(with: &mut Collect<'_>) -> Result<State> {
        let Some((_, any)) = with.files.first() else { return Ok(State::default()) };
        let stat = fstat(any).map_err(kernel("fstat"))?;
        let link = link_of(any.as_fd())?;
        let is_called = |beginning: &[u8]| link.as_encoded_bytes().starts_with(beginning);
        if is_called(b"/SYSV") {
            with.obstacle(&SYSV);
        }
        let huge = is_called(b"/anon_hugepage");
        let huge = if huge { stat.st_blksize.trailing_zeros() } else { 0 };
        with.keep_file(reopen(any.as_fd(), OFlag::O_RDONLY)?);
        Ok(State { size: stat.st_size.unsigned_abs(), huge })
    }

    fn build(state: &State, with: &mut Build<'_>) -> Result<Ends> {
        let damaged = |_| Error::Record(Self::NAME.into(), None);
        let size = usize::try_from(state.size).map_err(damaged)?;
        let made = anonymous::shared_memory(size, state.huge).map_err(kernel("mmap"))?;
        with.fill(made.as_fd())?;
        Ok(Ends::one(made))
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;
    use super::*;
    use nix::unistd::geteuid;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    #[test]
    fn round_trip() {
        assert!(geteuid().is_root(), "map_files wants CAP_CHECKPOINT_RESTORE: run as root");
        let ours = anonymous::shared_memory(1 << 20, 0).unwrap();
        File::from(ours.try_clone().unwrap()).write_all_at(b"here", 70_000).unwrap();
        let (state, opened) = Bench::default().round_trip::<Shmem>(&[ours]);
        assert_eq!((state.size, state.huge), (1 << 20, 0));
        let mut room = [0; 4];
        File::from(opened[0].try_clone().unwrap()).read_exact_at(&mut room, 70_000).unwrap();
        assert_eq!(&room, b"here");
    }

    /// Opened through `map_files` by the program itself, which cut it to an odd size, or to nothing.
    #[test]
    fn one_that_was_cut() {
        for size in [0, 5, 4097] {
            let ours = anonymous::shared_memory(size, 0).unwrap();
            let (state, _) = Bench::default().round_trip::<Shmem>(&[ours]);
            assert_eq!(state.size, size as u64);
        }
    }
}
