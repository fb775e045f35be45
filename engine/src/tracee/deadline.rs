//! Relative timeouts, kept across snapshots.
//!
//! A thread that sleeps with a relative timeout has a stub (`arch`) beside the cave, which says until
//! when. Where the kernel forgets how long the thread has slept (`epoll_wait(2)` and its like answer EINTR),
//! the thread waits the rest in the stub itself. Where the kernel remembers (`restart_block`), it goes on
//! by the kernel's own means, and the stub is for the image, in which `restart_block` does not travel: the
//! restored thread starts in its stub, for the bytes behind the vdso are part of the image.
//!
//! There is room for a dozen stubs; those where the kernel forgets come first. Whoever finds none waits its
//! whole timeout anew if the kernel forgot, and in a restored program.
use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;

use nix::libc;

use super::asleep::{Asleep, monotonic};
use super::site::Site;
use crate::arch::stub::{self, Stub};
use crate::arch::{Interrupted, RegisterFile, Timeout};
use crate::inventory::Tid;

const SECOND: i64 = 1_000_000_000;
const MILLISECOND: i64 = 1_000_000;

/// A thread's stub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) address: u64,
    pub(super) stub: Stub,
    /// The thread itself waits in it.
    pub(super) inside: bool,
}

impl Waiting {
    /// The value of the timeout's register for the rest of the wait.
    pub(super) fn timeout(&self, now: i64) -> u64 {
        let left = left(self.stub.deadline, now);
        match timeout_of(&self.stub) {
            Some(Timeout::Milliseconds(_)) => left.div_ceil(MILLISECOND.unsigned_abs()),
            _ => self.address + stub::REST,
        }
    }

    /// Brings what the stub says is left up to date.
    pub(super) fn refresh(&mut self, site: &Site, now: i64) -> std::io::Result<()> {
        let left = left(self.stub.deadline, now).cast_signed();
        self.stub.rest = [left / SECOND, left % SECOND];
        site.memory.write_all_at(&self.stub.encode(), self.address)
    }
}

fn left(deadline: i64, now: i64) -> u64 {
    deadline.saturating_sub(now).max(0).unsigned_abs()
}

fn timeout_of(stub: &Stub) -> Option<Timeout> {
    // Whether it is relative was found out when the stub was made.
    RegisterFile::default().timeout(stub.call.into())
}

/// How long the call of these registers waits in all; `None`: for ever, or until a point of time.
fn whole(site: &Site, registers: &RegisterFile, call: i64) -> Option<(usize, i64)> {
    match registers.timeout(call)? {
        Timeout::Milliseconds(argument) => {
            let low = u32::try_from(registers.argument(argument) & 0xffff_ffff).ok()?;
            let milliseconds = i64::from(low.cast_signed());
            (milliseconds >= 0).then_some((argument, milliseconds * MILLISECOND))
        }
        Timeout::Timespec(argument) => {
            let address = registers.argument(argument);
            let mut bytes = [0; 16];
            site.memory.read_exact_at(&mut bytes, address).ok().filter(|()| address != 0)?;
            let [seconds, nanoseconds] = bytes.as_chunks().0 else { return None };
            let seconds = i64::from_ne_bytes(*seconds);
            Some((
                argument,
                seconds.saturating_mul(SECOND).saturating_add(i64::from_ne_bytes(*nanoseconds)),
            ))
        }
        Timeout::Countdown(_) | Timeout::CountdownMicro(_) => None,
    }
}

/// The stubs of a process.
#[derive(Debug)]
pub(super) struct Stubs {
    places: Vec<(u64, Option<Stub>)>,
    used: BTreeSet<u64>,
    /// Somebody has found no room since this was asked.
    full: bool,
}

impl Stubs {
    pub(super) fn of(site: &Site) -> std::io::Result<Self> {
        let addresses: Vec<_> = site.stubs().collect();
        let mut bytes = vec![0; addresses.len() * stub::BYTES];
        if let Some(first) = addresses.first() {
            site.memory.read_exact_at(&mut bytes, *first)?;
        }
        let stubs = bytes.chunks(stub::BYTES).map(Stub::decode);
        let places = addresses.into_iter().zip(stubs).collect();
        Ok(Self { places, used: BTreeSet::new(), full: false })
    }

    /// The stub that this thread is in, or that was made for its present wait.
    pub(super) fn present(&mut self, tid: Tid, registers: &RegisterFile) -> Option<Waiting> {
        let at = registers.instruction();
        let resumes = registers.interrupted() == Interrupted::Resumes(libc::SYS_restart_syscall);
        let now = monotonic();
        let mut found = None;
        for (address, stub) in &self.places {
            let Some(stub) = *stub else { continue };
            let inside = (*address..address + stub::CODE_END).contains(&at);
            let of_wait = resumes && stub.tid == tid.0 && stub.home == at && stub.deadline > now;
            if inside || of_wait {
                self.used.insert(*address);
                let waits = !inside || at == address + stub::WAITING;
                found = waits.then_some(Waiting { address: *address, stub, inside });
            }
        }
        found.filter(|_| registers.interrupted() != Interrupted::No)
    }

    /// Where stubs may be.
    pub(super) fn addresses(&self) -> impl Iterator<Item = u64> {
        self.places.iter().map(|(address, _)| *address)
    }

    /// So many places from this one on are in use.
    pub(super) fn claim(&mut self, address: u64, places: usize) {
        self.used.extend((0..places).map(|index| address + (index * stub::BYTES) as u64));
    }

    /// So many free places in a row; they are in use from now on.
    pub(super) fn room(&mut self, places: usize) -> Option<u64> {
        let addresses: Vec<_> = self.addresses().collect();
        let free = |run: &&[u64]| run.iter().all(|address| !self.used.contains(address));
        let found = addresses.windows(places).find(free).and_then(<[u64]>::first).copied();
        self.full |= found.is_none();
        if let Some(found) = found {
            self.claim(found, places);
        }
        found
    }

    /// Whether somebody has found no room since this was asked.
    pub(super) fn is_full(&mut self) -> bool {
        std::mem::take(&mut self.full)
    }

    /// Somebody else needs the room more.
    pub(super) fn give_up(&mut self, waiting: &Waiting) {
        self.used.remove(&waiting.address);
    }

    /// A new stub for a thread that sleeps with a relative timeout, if there is room.
    pub(super) fn make(
        &mut self,
        site: &Site,
        tid: Tid,
        registers: &RegisterFile,
        asleep: Option<Asleep>,
    ) -> std::io::Result<Option<Waiting>> {
        let (call, inside) = match registers.interrupted() {
            Interrupted::Again(call) => (call, true),
            Interrupted::Resumes(call) => (call, false),
            _ => return Ok(None),
        };
        let Some((argument, whole)) = whole(site, registers, call) else { return Ok(None) };
        let Some(address) = self.room(1) else { return Ok(None) };
        let now = monotonic();
        let same = |sleep: &Asleep| sleep.is_in(tid, call, registers);
        let since = asleep.filter(same).map_or(now, |sleep| sleep.since.min(now));
        let stub = Stub {
            argument,
            original: registers.argument(argument),
            home: registers.instruction(),
            deadline: since.saturating_add(whole),
            rest: [0; 2],
            tid: tid.0,
            call: i32::try_from(call).unwrap_or_default(),
        };
        let mut waiting = Waiting { address, stub, inside };
        waiting.refresh(site, now)?;
        Ok(Some(waiting))
    }
}
