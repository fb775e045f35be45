//! Memory shared with blanks, at one address on both sides: the code of their loop, a word at the
//! gate, and a block for each thread.
//!
//! Mapped before the blanks are born, and inherited; so no descriptor of it ever exists.
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::Result;
use nix::errno::Errno;
use nix::libc;

use crate::arch::blank::{self, Block, Slot};

/// Bytes of a block: its head, [`SLOTS`] calls, and [`DATA_BYTES`] for what they point to.
pub(crate) const BLOCK_BYTES: usize = 0x10000;
/// Calls that fit in one batch.
pub(crate) const SLOTS: usize = 256;
/// Where a block's data begin.
const DATA: usize = size_of::<Block>() + SLOTS * size_of::<Slot>();
/// Room for data.
pub(crate) const DATA_BYTES: usize = BLOCK_BYTES - DATA;
/// Code and gate, a page each, come before the blocks.
const HEAD: usize = 0x2000;
const PAGE: usize = 0x1000;

/// The memory.
#[derive(Debug)]
pub(crate) struct Area {
    base: NonNull<u8>,
    len: usize,
}

impl Area {
    /// How long one for so many blocks is.
    pub(crate) fn bytes(blocks: usize) -> usize {
        HEAD + blocks * BLOCK_BYTES
    }

    /// Maps one for `blocks` threads at `address`, which must be free.
    pub(crate) fn map(address: u64, blocks: usize) -> Result<Self> {
        let len = Self::bytes(blocks);
        let place = usize::try_from(address).map_err(|_| Errno::ENOMEM)?;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let flags = flags | libc::MAP_NORESERVE;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let hint = std::ptr::without_provenance_mut(place);
        // SAFETY: a new mapping, which replaces none (MAP_FIXED_NOREPLACE).
        let base = unsafe { libc::mmap(hint, len, prot, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or(Errno::ENOMEM)?;
        let area = Self { base, len };
        area.write(0, blank::code())?;
        // SAFETY: the first page is ours and holds nothing but the code just written.
        Errno::result(unsafe {
            libc::mprotect(base.as_ptr().cast(), PAGE, libc::PROT_READ | libc::PROT_EXEC)
        })?;
        Ok(area)
    }

    /// The same number on both sides.
    pub(crate) fn address(&self) -> u64 {
        self.base.as_ptr().expose_provenance() as u64
    }

    /// How long.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Address of the word at the gate.
    pub(crate) fn gate_address(&self) -> u64 {
        self.address() + PAGE as u64
    }

    /// The block with this number.
    pub(crate) fn block(&self, number: usize, owner: i32) -> Result<BlockRef<'_>> {
        let offset = HEAD + number * BLOCK_BYTES;
        let block = BlockRef { area: self, offset };
        self.write(offset + std::mem::offset_of!(Block, owner), &owner.to_ne_bytes())?;
        Ok(block)
    }

    /// Who is stopped, and has to be ended by those at the gate if nobody goes.
    pub(crate) fn stopped(&self, pids: &[i32]) -> Result<()> {
        let count = u32::try_from(pids.len()).map_err(|_| Errno::E2BIG)?;
        let words = pids.iter().flat_map(|pid| pid.to_ne_bytes());
        let bytes: Vec<u8> = count.to_ne_bytes().into_iter().chain(words).collect();
        if blank::STOPPED + bytes.len() > HEAD - PAGE {
            return Err(Errno::E2BIG);
        }
        self.write(PAGE + blank::STOPPED, &bytes)
    }

    /// Opens the gate, unless somebody has given up waiting there.
    pub(crate) fn open_gate(&self) -> bool {
        let gate = self.word(PAGE);
        let (shut, open) = (blank::SHUT, blank::OPEN);
        gate.compare_exchange(shut, open, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        debug_assert!(offset + 4 <= self.len);
        // SAFETY: `offset` is one of this file's own, within the mapping.
        let place = unsafe { self.base.as_ptr().add(offset) };
        // SAFETY: `offset` is a multiple of four; the mapping lives as long as `self`, and others
        // change the word by atomic means only.
        unsafe { AtomicU32::from_ptr(place.cast()) }
    }

    fn write(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        let end = offset.checked_add(bytes.len()).filter(|end| *end <= self.len);
        end.ok_or(Errno::EMSGSIZE)?;
        // SAFETY: `offset` is within the mapping: just checked.
        let place = unsafe { self.base.as_ptr().add(offset) };
        // SAFETY: source and destination are valid for the length (just checked) and do not
        // overlap; no reference into the area exists but to atomics, and whoever shares it waits.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
        Ok(())
    }

    fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(bytes.len()).filter(|end| *end <= self.len);
        end.ok_or(Errno::EMSGSIZE)?;
        // SAFETY: `offset` is within the mapping: just checked.
        let place = unsafe { self.base.as_ptr().add(offset) };
        // SAFETY: likewise.
        unsafe { std::ptr::copy_nonoverlapping(place, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone on this side, and no reference outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// One thread's part of the area.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockRef<'a> {
    area: &'a Area,
    offset: usize,
}

impl BlockRef<'_> {
    /// Its address.
    pub(crate) fn address(&self) -> u64 {
        self.area.address() + self.offset as u64
    }

    /// Address of the byte `at` of its data.
    pub(crate) fn data_address(&self, at: usize) -> u64 {
        self.address() + (DATA + at) as u64
    }

    /// Writes to its data.
    pub(crate) fn put(&self, at: usize, bytes: &[u8]) -> Result<()> {
        if at + bytes.len() > DATA_BYTES {
            return Err(Errno::EMSGSIZE);
        }
        self.area.write(self.offset + DATA + at, bytes)
    }

    /// Reads from its data.
    pub(crate) fn get(&self, at: usize, bytes: &mut [u8]) -> Result<()> {
        if at + bytes.len() > DATA_BYTES {
            return Err(Errno::EMSGSIZE);
        }
        self.area.read(self.offset + DATA + at, bytes)
    }

    fn state(&self) -> &AtomicU32 {
        self.area.word(self.offset)
    }

    /// Before the thread is born: it is not yet waiting.
    pub(crate) fn arm(&self) {
        self.state().store(blank::POSTED, Ordering::SeqCst);
    }

    /// Has it make calls.
    pub(crate) fn post(&self, slots: &[Slot]) -> Result<()> {
        if slots.len() > SLOTS {
            return Err(Errno::E2BIG);
        }
        let bytes: Vec<u8> = slots.iter().flat_map(slot_bytes).collect();
        self.area.write(self.offset + size_of::<Block>(), &bytes)?;
        let count = (slots.len() as u64).to_ne_bytes();
        self.area.write(self.offset + std::mem::offset_of!(Block, count), &count)?;
        self.state().store(blank::POSTED, Ordering::SeqCst);
        futex(self.state(), libc::FUTEX_WAKE, 1, None);
        Ok(())
    }

    /// Waits until it has made them; whether it has.
    pub(crate) fn wait(&self, at_most: Duration) -> bool {
        if self.state().load(Ordering::SeqCst) == blank::POSTED {
            futex(self.state(), libc::FUTEX_WAIT, blank::POSTED, Some(at_most));
        }
        self.state().load(Ordering::SeqCst) == blank::IDLE
    }

    /// What each call returned.
    pub(crate) fn results(&self, count: usize) -> Result<Vec<i64>> {
        let mut bytes = vec![0; count * size_of::<Slot>()];
        self.area.read(self.offset + size_of::<Block>(), &mut bytes)?;
        let at = std::mem::offset_of!(Slot, result);
        let result =
            |slot: &[u8]| slot.get(at..at + 8).and_then(|bytes| bytes.first_chunk().copied());
        Ok(bytes
            .chunks_exact(size_of::<Slot>())
            .filter_map(result)
            .map(i64::from_ne_bytes)
            .collect())
    }
}

fn slot_bytes(slot: &Slot) -> Vec<u8> {
    let args = slot.args.iter().flat_map(|arg| arg.to_ne_bytes());
    let (number, result) = (slot.number.to_ne_bytes(), slot.result.to_ne_bytes());
    number.into_iter().chain(args).chain(result).chain(slot.flags.to_ne_bytes()).collect()
}

fn futex(word: &AtomicU32, operation: i32, value: u32, at_most: Option<Duration>) {
    let at_most = at_most.map(|time| libc::timespec {
        tv_sec: time.as_secs().cast_signed(),
        tv_nsec: time.subsec_nanos().into(),
    });
    let time = at_most.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `word` and `time` live for the length of the call; FUTEX_WAIT and FUTEX_WAKE touch
    // nothing else. Its outcome is told by the word itself.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, time) };
}
