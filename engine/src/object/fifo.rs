//! fifo(7): a pipe with a name, which whoever opens it shares.
//!
//! Kernel: `fs/pipe.c`. While one is built, a descriptor that reads and writes holds it: so no open(2)
//! waits for a partner, and what is queued stays. Only a reader that has never seen a writer, and so
//! waits for one instead of finding the end (`EPOLLHUP`), is opened when that one is gone. Partners
//! outside the tree are none of our business: they meet the program again by name.
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::{POLLHUP, S_IFIFO};
use nix::sys::stat::Mode;
use nix::unistd;

use super::named::{self, Causes, Named, reopen};
use super::queue::{self, Run};
use super::{Build, Check, Claim, Collect, Ends, Evidence, Identity, Missing, Object, View};
use crate::error::{Cause, Result, kernel, kernel_io};
use crate::inventory::End;
use crate::sys;

pub(super) struct Fifo;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct State {
    #[prost(message, required, tag = "1")]
    named: Named,
    /// `F_GETPIPE_SZ`; zero if it is only held by `O_PATH`.
    #[prost(int32, tag = "2")]
    capacity: i32,
    #[prost(message, repeated, tag = "3")]
    runs: Vec<Run>,
    /// For each open file, if there is a reader that has never seen a writer: whether it is one.
    #[prost(bool, repeated, tag = "4")]
    unseen: Vec<bool>,
    /// Likewise: which end it is.
    #[prost(uint32, repeated, tag = "5")]
    ends: Vec<u32>,
}

const NAMES: Causes = named::causes!("fifo");
/// Where the descriptor waits that holds it while it is built: no name hashes to it but by a miracle.
const HELD: End = End(u32::MAX);

impl Object for Fifo {
    const NAME: &'static str = "fifo";
    const CAUSES: &'static [Cause] = &[NAMES.hidden, NAMES.renamed, NAMES.missing];
    type State = State;

    fn claims(seen: &Evidence) -> Option<Claim> {
        let claim = Claim { identity: Identity::Inode(seen.inode), end: named::end(seen) };
        (seen.is(S_IFIFO) && seen.has_path()).then_some(claim)
    }

    fn collect(with: &mut Collect<'_>) -> Result<State> {
        let named = Named::collect(with, &NAMES)?;
        let (mut reader, mut packets) = (None, false);
        for (_, fd) in with.files {
            let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(kernel("fcntl"))?;
            let flags = OFlag::from_bits_retain(flags);
            if flags.contains(OFlag::O_PATH) {
                continue;
            }
            let reads = flags & OFlag::O_ACCMODE != OFlag::O_WRONLY;
            packets |= flags.contains(OFlag::O_DIRECT);
            // Without a reader in the tree we are one for a moment.
            reader = if reads {
                Some(fd.try_clone().map_err(kernel_io("fcntl"))?)
            } else if reader.is_none() {
                Some(reopen(fd.as_fd(), OFlag::O_RDONLY | OFlag::O_NONBLOCK)?)
            } else {
                reader
            };
        }
        let Some(reader) = reader else { return Ok(State { named, ..State::default() }) };
        let capacity = fcntl(&reader, FcntlArg::F_GETPIPE_SZ).map_err(kernel("fcntl"))?;
        let (bytes, runs) = queue::copy(reader.as_fd(), capacity, packets)?;
        let unseen = if bytes.is_empty() { unseen(with)? } else { Vec::new() };
        with.keep(End(0), bytes);
        let of_ends = with.files.iter().map(|(end, _)| end.0);
        let ends = if unseen.is_empty() { Vec::new() } else { of_ends.collect() };
        Ok(State { named, capacity, runs, unseen, ends })
    }

    fn check(state: &State, with: &Check) -> Vec<Missing> {
        state.named.check(S_IFIFO, *with, &NAMES)
    }

    fn build(state: &State, with: &mut Build<'_>) -> Result<Ends> {
        let mut ends = state.named.build(&NAMES, make, |_| Ok(()))?;
        if state.capacity != 0 {
            let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK;
            let held = ends.any().map(|place| reopen(place, flags)).transpose()?;
            if let Some(held) = held {
                // What waits already is of a partner who kept it open all the time.
                if sys::queued(held.as_fd()).map_err(kernel("ioctl"))? == 0 {
                    let bytes = with.kept(End(0), queue::len(&state.runs))?;
                    queue::refill(held.as_fd(), state.capacity, &bytes, &state.runs)?;
                }
                state.named.put_back(held.as_fd())?; // Writing has changed the time.
                if !state.unseen.is_empty() {
                    return state.readers(&ends, held);
                }
                ends.add(HELD, held);
            }
        }
        Ok(ends)
    }

    fn view(state: &State, end: End) -> View {
        state.named.view(end)
    }
}

/// Readers that wait for their first writer, if there is no writer now.
fn unseen(with: &Collect<'_>) -> Result<Vec<bool>> {
    let one = |(_, fd): &(End, Rc<OwnedFd>)| {
        let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(kernel("fcntl"))?;
        let flags = OFlag::from_bits_retain(flags);
        let reads = flags & (OFlag::O_ACCMODE | OFlag::O_PATH) == OFlag::O_RDONLY;
        Ok((reads, reads && !sys::poll_now(fd.as_fd(), POLLHUP).map_err(kernel("poll"))?))
    };
    let told = with.files.iter().map(one).collect::<Result<Vec<_>>>()?;
    let waits = |told: &[(bool, bool)]| told.iter().map(|(_, waits)| *waits).collect::<Vec<_>>();
    let Some((_, any)) = with.files.first().filter(|_| told.iter().all(|(reads, _)| *reads)) else {
        return Ok(Vec::new());
    };
    // At the end of what nobody writes to, a read(2) returns nothing; else it would block.
    let probe = reopen(any.as_fd(), OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
    let nobody = unistd::read(&probe, &mut [0]) == Ok(0);
    let waits = waits(&told);
    Ok(if nobody && waits.contains(&true) { waits } else { Vec::new() })
}

impl State {
    /// One for each open file: first those that have seen a writer, which `held` is.
    fn readers(&self, ends: &Ends, held: OwnedFd) -> Result<Ends> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let places: Vec<_> = ends.each().collect();
        let mut made: Vec<_> = self.unseen.iter().map(|_| None).collect();
        let mut held = Some(held);
        for unseen in [false, true] {
            if unseen {
                held = None;
            }
            for (index, slot) in made.iter_mut().enumerate() {
                let of_end =
                    self.ends.get(index).and_then(|end| places.iter().find(|(at, _)| at.0 == *end));
                if let (true, Some((end, place))) =
                    (self.unseen.get(index) == Some(&unseen), of_end)
                {
                    *slot = Some((*end, reopen(*place, flags)?));
                }
            }
        }
        drop(held);
        Ok(Ends::many(made.into_iter().flatten().collect()))
    }
}

fn make(path: &Path) -> nix::Result<()> {
    unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;
    use super::*;
    use nix::fcntl::open;
    use std::fs;

    fn fifo(path: &Path, access: &[OFlag]) -> Vec<OwnedFd> {
        make(path).unwrap();
        let quick = OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        access.iter().map(|access| open(path, *access | quick, Mode::empty()).unwrap()).collect()
    }

    /// Held by nobody else while it is built: what waits in a FIFO is there for all.
    fn round_trip(ours: Vec<OwnedFd>) -> (State, Vec<OwnedFd>) {
        let (mut bench, mut again) = (Bench::default(), Bench::default());
        let state = bench.collect::<Fifo>(&ours);
        drop(ours);
        let built = bench.build::<Fifo>(&state);
        let opened = bench.open(&built);
        drop(built);
        assert_eq!(again.collect::<Fifo>(&opened), state);
        assert_eq!((again.bulk.bytes, again.open_files), (bench.bulk.bytes, bench.open_files));
        (state, opened)
    }

    #[test]
    fn all_come_back_under_the_name_and_without_it() {
        let dir = tempfile::tempdir().unwrap();
        for gone in [false, true] {
            let path = dir.path().join(if gone { "gone" } else { "lives" });
            let ours = fifo(&path, &[OFlag::O_RDONLY, OFlag::O_WRONLY, OFlag::O_RDWR]);
            unistd::write(&ours[1], b"queued").unwrap();
            if gone {
                fs::remove_file(&path).unwrap();
            }
            let (state, opened) = round_trip(ours);
            assert_eq!(state.named.is_gone(), gone);
            assert_eq!(unistd::read(&opened[2], &mut [0; 16]), Ok(6));
            assert_eq!(path.exists(), !gone);
        }
    }

    /// One that has seen a writer go finds the end; the other one waits for the first to come.
    #[test]
    fn readers_wait_for_their_first_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut ours = fifo(&path, &[OFlag::O_RDONLY, OFlag::O_WRONLY]);
        ours.remove(1);
        let quick = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        ours.push(open(&path, quick, Mode::empty()).unwrap());
        let ended = |fd: &OwnedFd| sys::poll_now(fd.as_fd(), POLLHUP).unwrap();
        assert_eq!(ours.iter().map(ended).collect::<Vec<_>>(), [true, false]);
        let (state, opened) = round_trip(ours);
        assert_eq!(state.unseen, [false, true]);
        assert_eq!(opened.iter().map(ended).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn a_lonely_writer_does_not_wait() {
        let dir = tempfile::tempdir().unwrap();
        let mut ours = fifo(&dir.path().join("x"), &[OFlag::O_RDWR, OFlag::O_WRONLY]);
        unistd::write(&ours[1], b"left").unwrap();
        ours.remove(0);
        assert_eq!(round_trip(ours).0.runs.len(), 1);
    }
}
