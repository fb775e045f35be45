//! Files and directories that the kernel makes up, other than /proc's: sysfs, cgroups, debugfs, ...
//!
//! Directories, and what sysfs and cgroups show to readers, are opened again by name. Writing to such
//! files, or reading others, may do anything: refused.
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::{S_IFDIR, S_IFREG};
use nix::sys::stat::fstat;
use nix::sys::statfs::fstatfs;

use super::file::is_kept;
use super::named::{self, Causes, Named};
use super::{Build, Check, Claim, Collect, Ends, Evidence, Identity, Missing, Object, View};
use crate::error::{Cause, Result, kernel};
use crate::inventory::End;

pub(super) struct KernelFile;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    #[prost(message, required, tag = "1")]
    named: Named,
    /// Its type, `S_IFREG` or `S_IFDIR`.
    #[prost(uint32, tag = "2")]
    file_type: u32,
}

const NAMES: Causes = named::causes!("kernel_file");
const UNSUPPORTED: Cause = Cause {
    code: "kernel_file:unsupported",
    reason: "the kernel makes it up, and opening it again need not mean the same",
    remedy: "have the program close it",
};

/// `include/uapi/linux/magic.h`: proc (a kind of its own), and those that readers may open twice:
/// sysfs, cgroup, cgroup2.
const PROC: i64 = 0x9fa0;
const READABLE: &[i64] = &[0x6265_6572, 0x0027_e0eb, 0x6367_7270];

impl Object for KernelFile {
    const NAME: &'static str = "kernel_file";
    const CAUSES: &'static [Cause] = &[NAMES.hidden, NAMES.renamed, NAMES.missing, UNSUPPORTED];
    type State = State;

    fn claims(seen: &Evidence) -> Option<Claim> {
        let file = (seen.is(S_IFREG) || seen.is(S_IFDIR)) && seen.has_path();
        let ours = !is_kept(seen) && !seen.is_memory() && seen.filesystem != PROC;
        let claim = Claim { identity: Identity::Inode(seen.inode), end: named::end(seen) };
        (file && ours).then_some(claim)
    }

    fn collect(with: &mut Collect<'_>) -> Result<State> {
        let named = Named::collect(with, &NAMES)?;
        let mut file_type = S_IFDIR;
        for (_, fd) in with.files {
            let directory = fstat(fd).map_err(kernel("fstat"))?.st_mode & S_IFDIR != 0;
            let magic = fstatfs(fd.as_fd()).map_err(kernel("fstatfs"))?.filesystem_type().0;
            let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(kernel("fcntl"))?;
            let flags = OFlag::from_bits_retain(flags);
            let reads = flags.contains(OFlag::O_PATH)
                || (flags & OFlag::O_ACCMODE == OFlag::O_RDONLY && READABLE.contains(&magic));
            if !directory {
                file_type = S_IFREG;
            }
            if named.is_gone() || !(directory || reads) {
                with.obstacle(&UNSUPPORTED);
            }
        }
        Ok(State { named, file_type })
    }

    fn check(state: &State, with: &Check) -> Vec<Missing> {
        state.named.check(state.file_type, *with, &NAMES)
    }

    fn build(state: &State, _: &mut Build<'_>) -> Result<Ends> {
        state.named.build(&NAMES, |_| Err(Errno::ENOENT), |_| Ok(()))
    }

    fn view(state: &State, end: End) -> View {
        state.named.view(end)
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;
    use super::*;
    use std::fs::File;

    #[test]
    fn what_sysfs_shows_is_opened_again() {
        for path in ["/sys/kernel", "/sys/kernel/mm/transparent_hugepage/enabled"] {
            let file = File::open(path).unwrap();
            let (state, _) = Bench::default().round_trip::<KernelFile>(&[file.into()]);
            assert_eq!(KernelFile::check(&state, &Check::default()), []);
        }
    }
}
