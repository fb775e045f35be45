//! Waits to receive from a socket with a limit, kept across snapshots: see `arch::receive`.
//!
//! Limits of sending are not kept: a socket says that it is writable later than a call would go on.
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::sys::socket::{getsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::TimeValLike;

use super::asleep::{Asleep, monotonic};
use super::deadline::Stubs;
use super::site::Site;
use crate::arch::receive::{BYTES, CODE_END, ReceiveStub, WAITING, may_receive};
use crate::arch::{Interrupted, RegisterFile, stub};
use crate::inventory::{Pid, Tid};
use crate::sys::pidfd;

/// Below the stack pointer, what a function may use without moving that (the ABI's red zone).
const RED_ZONE: u64 = 128;
const MILLISECOND: i64 = 1_000_000;

/// A thread's stub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Receiving {
    address: u64,
    stub: ReceiveStub,
}

impl Receiving {
    /// The stub that this thread waits in. One that it has not left yet is kept as well.
    pub(super) fn present(
        site: &Site,
        stubs: &mut Stubs,
        registers: &RegisterFile,
    ) -> Option<Self> {
        let at = registers.instruction();
        let holds = |place: &u64| (*place..place + CODE_END).contains(&at);
        let address = stubs.addresses().find(holds)?;
        let mut bytes = [0; BYTES];
        site.memory.read_exact_at(&mut bytes, address).ok()?;
        let stub = ReceiveStub::decode(&bytes)?;
        stubs.claim(address, BYTES / stub::BYTES);
        let waits = at == address + WAITING && registers.interrupted() != Interrupted::No;
        waits.then_some(Self { address, stub })
    }

    /// A new stub for a thread that was interrupted while it waited to receive, if there is room.
    pub(super) fn make(
        site: &Site,
        stubs: &mut Stubs,
        (pid, tid): (Pid, Tid),
        registers: &RegisterFile,
        asleep: Option<Asleep>,
    ) -> std::io::Result<Option<Self>> {
        let Interrupted::Again(call) = registers.interrupted() else { return Ok(None) };
        let limit = may_receive(call).then(|| limit(pid, registers.argument(0))).flatten();
        let Some((limit, call)) = limit.zip(i32::try_from(call).ok()) else { return Ok(None) };
        let Some(address) = stubs.room(BYTES / stub::BYTES) else { return Ok(None) };
        let now = monotonic();
        let same = |sleep: &Asleep| sleep.is_in(tid, call.into(), registers);
        let since = asleep.filter(same).map_or(now, |sleep| sleep.since.min(now));
        let stub = ReceiveStub {
            call,
            arguments: [0, 1, 2].map(|index| registers.argument(index)),
            home: registers.instruction(),
            deadline: since.saturating_add(limit),
            entry: (registers.stack() - RED_ZONE - 8) & !7,
            tid: tid.0,
        };
        site.memory.write_all_at(&stub.encode(), address)?;
        Ok(Some(Self { address, stub }))
    }

    /// Its registers, interrupted in the stub with what is left now.
    pub(super) fn inside(&self, site: &Site, raw: RegisterFile) -> std::io::Result<RegisterFile> {
        site.memory.write_all_at(&self.stub.polled(), self.stub.entry)?;
        let left = self.stub.deadline.saturating_sub(monotonic()).max(0).unsigned_abs();
        let left = left.div_ceil(MILLISECOND.unsigned_abs());
        Ok(self.stub.inside(raw, self.address, i32::try_from(left).unwrap_or(i32::MAX)))
    }
}

/// How long the socket lets receivers wait, in nanoseconds; `None`: for ever, or it is no socket.
fn limit(pid: Pid, fd: u64) -> Option<i64> {
    let fd = i32::try_from(fd & 0xffff_ffff).ok()?;
    let socket = pidfd::take(pidfd::open(pid).ok()?.as_fd(), fd).ok()?;
    let limit = getsockopt(&socket, ReceiveTimeout).ok()?.num_microseconds();
    (limit > 0).then(|| limit.saturating_mul(1000))
}
