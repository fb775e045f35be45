//! The threads: each takes work and does all of it, so that what it has read is still in its cache when
//! it names, compresses and writes it.
//!
//! They are as many as processors: more of them push what others are at out of the caches. After a failure
//! work is taken and dropped, so that nobody waits.
use std::io;
use std::ops::RangeInclusive;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::outlet::Outlet;
use super::{Announced, Cut, Entries, Piece, Run, Shared, Work};
use crate::chunk::{self, LARGEST, PAGE};
use crate::error::{Error, Result};
use crate::leaf::BLOCK;

/// How much work may wait.
const WAITING: usize = 4;
/// One may wait for the disk while another works; and no disk keeps up with more.
const THREADS: RangeInclusive<usize> = 2..=4;

#[derive(Debug)]
pub(super) struct Pool {
    work: SyncSender<Work>,
    threads: Vec<JoinHandle<Entries>>,
}

impl Pool {
    pub(super) fn start(shared: &Arc<Shared>) -> Self {
        let (work, waiting) = sync_channel(WAITING);
        let waiting = Arc::new(Mutex::new(waiting));
        let start = |_| {
            let (shared, waiting) = (Arc::clone(shared), Arc::clone(&waiting));
            std::thread::spawn(move || Worker::new(&shared).run(&waiting))
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = processors.clamp(*THREADS.start(), *THREADS.end());
        Self { work, threads: (0..threads).map(start).collect() }
    }

    /// `false`: nobody is left to do it.
    pub(super) fn give(&self, work: Work) -> bool {
        self.work.send(work).is_ok()
    }

    /// Waits until all is done and written; `None` if a thread has panicked.
    pub(super) fn finish(self) -> Option<Entries> {
        let Self { work, threads } = self;
        drop(work);
        let ended: Vec<_> = threads.into_iter().map(JoinHandle::join).collect();
        Some(ended.into_iter().collect::<Result<Vec<_>, _>>().ok()?.concat())
    }
}

struct Worker<'a> {
    shared: &'a Shared,
    outlet: Outlet,
    /// For what is yet to be read.
    room: Vec<u8>,
    entries: Entries,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self { shared, outlet: Outlet::default(), room: Vec::new(), entries: Vec::new() }
    }

    fn run(mut self, waiting: &Mutex<Receiver<Work>>) -> Entries {
        loop {
            let work = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(work) = work else { break };
            let done = self.take(work);
            self.shared.note(done);
        }
        let done = self.outlet.finish(self.shared);
        self.shared.note(done);
        self.entries
    }

    fn take(&mut self, work: Work) -> Result<()> {
        match work {
            Work::Here { room, pieces } => {
                self.keep(&room, &pieces)?;
                self.shared.spent(room);
                Ok(())
            }
            Work::There(Announced { stream, cut, runs, bytes, origin }) => {
                let mut room = std::mem::take(&mut self.room);
                room.resize(room.len().max(bytes), 0);
                let read = origin(&runs, room.get_mut(..bytes).unwrap_or_default());
                read.map_err(unread)?;
                let blocks = pieces(stream, &runs, &room);
                self.keep(&room, &if cut == Cut::Blocks { blocks } else { joined(blocks) })?;
                self.room = room;
                Ok(())
            }
        }
    }

    fn keep(&mut self, room: &[u8], pieces: &[Piece]) -> Result<()> {
        self.entries.extend(self.shared.keep(room, pieces, &mut self.outlet)?);
        Ok(())
    }
}

/// Why something could not be read: a parent's bytes are ours.
fn unread(error: io::Error) -> Error {
    error.downcast().unwrap_or_else(Error::Origin)
}

/// What of runs that lie one behind the other in a room becomes chunks by blocks.
fn pieces(stream: u32, runs: &[Run], room: &[u8]) -> Vec<Piece> {
    let (mut found, mut start) = (Vec::new(), 0);
    for &(mut at, len) in runs {
        let end = start + len;
        while start < end {
            let offset = usize::try_from(at % BLOCK).unwrap_or_default();
            let take = (end - start).min(LARGEST - offset);
            let block = room.get(start..start + take).unwrap_or_default();
            found.extend(full_runs(block).map(|(from, to)| Piece {
                stream,
                place: start + from..start + to,
                runs: vec![(at + from as u64, to - from)],
            }));
            (start, at) = (start + take, at + take as u64);
        }
    }
    found
}

/// Pieces joined where they are of one leaf and lie one behind the other, as far as a chunk reaches.
fn joined(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut found: Vec<Piece> = Vec::new();
    for piece in pieces {
        match found.last_mut().filter(|last| last.goes_on_with(&piece)) {
            Some(last) => {
                last.place.end = piece.place.end;
                last.runs.extend(piece.runs);
            }
            None => found.push(piece),
        }
    }
    found
}

/// Where pages that are not zero begin and end, neighbours joined.
pub(crate) fn full_runs(block: &[u8]) -> impl Iterator<Item = (usize, usize)> + '_ {
    let mut pages = block.chunks(PAGE).enumerate().peekable();
    std::iter::from_fn(move || {
        let (first, page) = pages.find(|(_, page)| !chunk::is_zero(page))?;
        let (start, mut end) = (first * PAGE, first * PAGE + page.len());
        while let Some((_, page)) = pages.next_if(|(_, page)| !chunk::is_zero(page)) {
            end += page.len();
        }
        Some((start, end))
    })
}
