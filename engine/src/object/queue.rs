//! What is queued in a pipe or FIFO, copied without disturbing it.
//!
//! Kernel: `fs/pipe.c`, `fs/splice.c`. A packet once written stays one, whatever becomes of the flag
//! (`O_DIRECT`) of its writer: a read(2) that takes only a part of it throws the rest away. That is
//! how packets are told from streams, in a copy.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, tee};
use nix::unistd;

use crate::error::{Error, Result, kernel};
use crate::sys;

/// Bytes that belong together.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Run {
    #[prost(uint64, tag = "1")]
    len: u64,
    /// One packet, rather than a part of a stream.
    #[prost(bool, tag = "2")]
    packet: bool,
}

/// How many bytes these are.
pub(super) fn len(runs: &[Run]) -> u64 {
    runs.iter().map(|run| run.len).fold(0, u64::saturating_add)
}

/// Copies what waits for the readers of `queue`. `packets`: some may have been written.
pub(super) fn copy(
    queue: BorrowedFd<'_>,
    capacity: i32,
    packets: bool,
) -> Result<(Vec<u8>, Vec<Run>)> {
    let copied = twin(queue, capacity)?;
    let (mut room, mut bytes, mut reads) = (vec![0; room(capacity)], Vec::new(), 0);
    loop {
        match unistd::read(&copied, &mut room).map_err(kernel("read"))? {
            0 => break,
            len => bytes.extend(room.iter().take(len)),
        }
        reads += 1;
    }
    // A stream is read in one go.
    let runs = if packets || reads > 1 {
        dissect(twin(queue, capacity)?.as_fd())?
    } else {
        let start = last_packet(queue, capacity, bytes.len())?;
        let run = |len: usize, packet| Run { len: len as u64, packet };
        let all = [run(start, false), run(bytes.len() - start, true)];
        all.into_iter().filter(|run| run.len > 0).collect()
    };
    Ok((bytes, runs))
}

/// Where the packet begins that may be the end of what was read in one go: its writer need not be in
/// packet mode any more. Whoever takes a part of it loses the rest.
fn last_packet(queue: BorrowedFd<'_>, capacity: i32, len: usize) -> Result<usize> {
    let is_cut = |taken: usize| -> Result<bool> {
        let copied = twin(queue, capacity)?;
        unistd::read(&copied, &mut vec![0; taken]).map_err(kernel("read"))?;
        Ok(sys::queued(copied.as_fd()).map_err(kernel("ioctl"))? < len - taken)
    };
    if len < 2 || !is_cut(len - 1)? {
        return Ok(len);
    }
    let (mut before, mut inside) = (0, len - 1);
    while inside - before > 1 {
        let middle = before.midpoint(inside);
        if is_cut(middle)? { inside = middle } else { before = middle }
    }
    Ok(before)
}

fn room(capacity: i32) -> usize {
    capacity.unsigned_abs() as usize
}

/// The reading end of a copy.
fn twin(queue: BorrowedFd<'_>, capacity: i32) -> Result<OwnedFd> {
    let flags = OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let (read, write) = unistd::pipe2(flags).map_err(kernel("pipe2"))?;
    fcntl(&write, FcntlArg::F_SETPIPE_SZ(capacity)).map_err(kernel("fcntl"))?;
    match tee(queue, &write, i32::MAX as usize, SpliceFFlags::SPLICE_F_NONBLOCK) {
        Ok(_) | Err(Errno::EAGAIN) => Ok(read),
        Err(errno) => Err(Error::Kernel("tee", errno)),
    }
}

/// Takes single bytes, and looks how many are gone. (A packet of one byte is as good as a stream.)
fn dissect(copied: BorrowedFd<'_>) -> Result<Vec<Run>> {
    let left = || sys::queued(copied).map_err(kernel("ioctl"));
    let (mut runs, mut before) = (Vec::<Run>::new(), left()?);
    while before > 0 {
        unistd::read(copied, &mut [0]).map_err(kernel("read"))?;
        let after = left()?;
        let len = (before - after) as u64;
        match runs.last_mut() {
            Some(last) if len == 1 && !last.packet => last.len += 1,
            _ => runs.push(Run { len, packet: len > 1 }),
        }
        before = after;
    }
    Ok(runs)
}

/// Sets the capacity of a pipe and queues `bytes` in it. `write` must not block, and is left without
/// packet mode.
pub(super) fn refill(
    write: BorrowedFd<'_>,
    capacity: i32,
    bytes: &[u8],
    runs: &[Run],
) -> Result<()> {
    fcntl(write, FcntlArg::F_SETPIPE_SZ(capacity)).map_err(kernel("fcntl"))?;
    let mut rest = bytes;
    for run in runs {
        let mut flags = OFlag::O_NONBLOCK;
        flags.set(OFlag::O_DIRECT, run.packet);
        fcntl(write, FcntlArg::F_SETFL(flags)).map_err(kernel("fcntl"))?;
        let len = usize::try_from(run.len).unwrap_or(usize::MAX).min(rest.len());
        let (now, after) = rest.split_at(len);
        if unistd::write(write, now).map_err(kernel("write"))? < now.len() {
            return Err(Error::Kernel("write", Errno::ENOSPC));
        }
        rest = after;
    }
    fcntl(write, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(kernel("fcntl"))?;
    Ok(())
}
