//! Files and directories of /proc: opened again by name, once the processes they tell of exist.
//!
//! What they show is made up as it is read, so there is nothing to keep but the position. One of a
//! process outside the tree would be somebody else's at the restore. One of a process that has ended
//! shows nothing any more: at the restore a stand-in has its number until it has been opened again.
use nix::libc::{S_IFDIR, S_IFREG};

use super::named::{self, Causes, Named};
use super::{
    Build, Check, Claim, Collect, Ends, Evidence, Identity, Missing, Object, StandIn, View,
};
use crate::error::{Cause, Result};
use crate::inventory::{End, Pid};

pub(super) struct ProcFile;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    #[prost(message, required, tag = "1")]
    named: Named,
    /// The process that it told of has died, and so all that is left of it is its name.
    #[prost(int32, optional, tag = "2")]
    dead: Option<i32>,
}

const NAMES: Causes = named::causes!("proc_file");
const STRANGER: Cause = Cause {
    code: "proc_file:stranger",
    reason: "it tells of a process outside the tree, or of one that has ended and whose number another has",
    remedy: "have the program close it",
};
const THREAD: Cause = Cause {
    code: "proc_file:thread",
    reason: "it tells of a thread, which is not there yet when files are opened again",
    remedy: "have the program close it",
};

/// `PROC_SUPER_MAGIC` of `include/uapi/linux/magic.h`.
const PROC: i64 = 0x9fa0;

impl Object for ProcFile {
    const NAME: &'static str = "proc_file";
    const CAUSES: &'static [Cause] = &[NAMES.hidden, NAMES.missing, STRANGER, THREAD];
    type State = State;

    fn claims(seen: &Evidence) -> Option<Claim> {
        let ours = seen.filesystem == PROC && (seen.is(S_IFREG) || seen.is(S_IFDIR));
        let claim = Claim { identity: Identity::Inode(seen.inode), end: named::end(seen) };
        (ours && seen.has_path()).then_some(claim)
    }

    fn collect(with: &mut Collect<'_>) -> Result<State> {
        let named = Named::names(with, &NAMES)?;
        let dead = named.gone().find_map(|path| owner(path.to_str()?)).map(|(pid, _)| pid);
        let again = dead.is_some_and(|pid| with.tree.member(pid).is_some());
        if named.gone().next().is_some() && dead.is_none() || again {
            with.obstacle(&STRANGER);
        }
        let whose: Vec<_> = named.living().filter_map(|path| owner(path.to_str()?)).collect();
        for (pid, thread) in whose {
            if with.tree.member(pid).is_none() {
                with.obstacle(&STRANGER);
            } else if thread.is_some_and(|thread| thread != pid) {
                with.obstacle(&THREAD);
            }
        }
        Ok(State { named, dead })
    }

    /// Of members of the tree there is nothing yet.
    fn check(state: &State, with: &Check) -> Vec<Missing> {
        let mut missing = state.named.check(S_IFREG, *with, &NAMES);
        let directories = state.named.check(S_IFDIR, *with, &NAMES);
        missing.retain(|lost| directories.contains(lost) && owner(&lost.object).is_none());
        missing
    }

    fn stand_ins(state: &State) -> Vec<StandIn> {
        state.dead.map(|pid| StandIn { pid: Pid(pid), needed: true }).into_iter().collect()
    }

    fn build(state: &State, _: &mut Build<'_>) -> Result<Ends> {
        state.named.open_all(&NAMES)
    }

    fn view(state: &State, end: End) -> View {
        state.named.view(end)
    }
}

/// The process, and the thread, whose file this is.
fn owner(path: &str) -> Option<(i32, Option<i32>)> {
    let mut parts = path.strip_prefix("/proc/")?.split('/');
    let pid = parts.next()?.parse().ok()?;
    let thread = (parts.next() == Some("task")).then(|| parts.next()?.parse().ok()).flatten();
    Some((pid, thread))
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;
    use super::*;
    use std::fs::File;

    #[test]
    fn round_trips_of_files_and_directories() {
        for path in ["/proc/meminfo", "/proc/self/maps", "/proc/self/fd", "/proc/sys/kernel"] {
            let file = File::open(path).unwrap();
            let (state, _) = Bench::default().round_trip::<ProcFile>(&[file.into()]);
            assert_eq!(ProcFile::check(&state, &Check::default()), []);
        }
    }

    /// It is found by a process that stands in for the dead one; reading it fails as before.
    #[test]
    fn what_tells_of_the_dead_asks_for_a_stand_in() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id().cast_signed();
        let file = File::open(format!("/proc/{pid}/status")).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let mut bench = Bench::default();
        let state = bench.collect::<ProcFile>(&[file.into()]);
        assert_eq!(bench.codes(), [""; 0]);
        assert_eq!(ProcFile::stand_ins(&state), [StandIn { pid: Pid(pid), needed: true }]);
        assert_eq!(ProcFile::check(&state, &Check::default()), []);
    }

    #[test]
    fn strangers_and_threads_are_obstacles() {
        assert_eq!(owner("/proc/12/task/13/stat"), Some((12, Some(13))));
        assert_eq!(owner("/proc/12/task"), Some((12, None)));
        assert_eq!(owner("/proc/meminfo"), None);
        let mut bench = Bench::default();
        bench.collect::<ProcFile>(&[File::open("/proc/1/status").unwrap().into()]);
        let own = || (File::open("/proc/thread-self/status").unwrap(), nix::unistd::gettid());
        let (file, tid) = std::thread::spawn(own).join().unwrap();
        // Whoever has joined it may go on before it is gone.
        while std::fs::exists(format!("/proc/self/task/{tid}")).unwrap() {
            std::thread::yield_now();
        }
        bench.collect::<ProcFile>(&[file.into()]);
        assert_eq!(bench.codes(), ["proc_file:stranger", "proc_file:stranger"]);
    }
}
