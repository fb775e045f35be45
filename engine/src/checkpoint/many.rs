//! Many threads: what is prepared for them before they are stopped.
use crate::census::Census;
use crate::inventory::Pid;
use crate::tracee::other_threads;

/// From so many on, beside the leaders, looking at all at once is worth preparing it.
const MANY: usize = 48;
/// What the registers of one take, without tiles.
const BYTES: usize = 3 << 10;

/// While this lives, the allocator holds room whose pages are there: to make them takes longer than reading
/// what goes there. An allocator keeps what was freed below something that lives.
pub(super) type Room = Vec<u8>;

/// Prepares for as many as there seem to be.
pub(super) fn expect(roots: &[Pid]) -> (Option<Census>, Option<Room>) {
    let threads = other_threads(roots, MANY);
    if threads < MANY { (None, None) } else { (Census::prepare(), warm(threads)) }
}

fn warm(threads: usize) -> Option<Room> {
    (0..=threads).map(|_| vec![1; BYTES]).collect::<Vec<_>>().pop()
}
