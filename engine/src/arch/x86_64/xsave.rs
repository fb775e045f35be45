//! Raw xsave areas: all that a thread has in its registers but the general ones.
//!
//! Tile registers take 8 of its 11 KiB where the processor has them, and hardly anybody uses them: without
//! them an area is read in a third of the time, and an image of many threads is a quarter as long.
//!
//! Kernel: `arch/x86/kernel/fpu/`; Intel SDM volume 1, chapter 13.
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::sync::LazyLock;

/// Where the header, and in it the mask of what is there, begins.
pub(super) const HEADER: usize = 512;
/// The leaf of CPUID that tells where everything is.
const LEAF: u32 = 0xd;
/// How many bytes a whole area has here. Where a hypervisor tells, each question takes microseconds.
static BYTES: LazyLock<usize> = LazyLock::new(|| __cpuid_count(LEAF, 0).ebx as usize);
/// How many of them lie before tile registers; `None` if there are none here, or not behind everything else.
static BEFORE_TILES: LazyLock<Option<usize>> = LazyLock::new(|| {
    let features = xfeatures();
    let place = |feature: u32| __cpuid_count(LEAF, feature).ebx;
    let tiles = place(TILE_CONFIG);
    let others = (2..63).filter(|one| ![TILE_CONFIG, TILE_DATA].contains(one));
    let last = others.filter(|one| features >> one & 1 != 0).all(|one| place(one) < tiles);
    (features >> TILE_CONFIG & 3 == 3 && last).then_some(tiles as usize)
});
/// `XTILECFG`, before which everything else lies.
const TILE_CONFIG: u32 = 17;
/// `XTILEDATA`: a mask bit, and the number that `ARCH_REQ_XCOMP_PERM` takes.
pub(crate) const TILE_DATA: u32 = 18;

/// The mask of what an area holds (`xstate_bv`).
pub(crate) fn holds(xstate: &[u8]) -> u64 {
    let mask = xstate.get(HEADER..HEADER + 8).and_then(|mask| mask.first_chunk());
    mask.map_or(0, |mask| u64::from_ne_bytes(*mask))
}

/// Whether any tile register is in use.
pub(crate) fn holds_tiles(xstate: &[u8]) -> bool {
    holds(xstate) >> TILE_CONFIG & 3 != 0
}

/// `XCR0`: what the kernel has enabled, and so what an area may hold (xgetbv).
pub(crate) fn xfeatures() -> u64 {
    let has = __cpuid(1).ecx >> 27 & 1 != 0;
    // SAFETY: OSXSAVE, just found, means that the instruction may be used here.
    if has { unsafe { _xgetbv(0) } } else { 0 }
}

/// How many bytes of an area lie before tile registers, if these are behind everything else.
pub(crate) fn before_tiles() -> Option<usize> {
    *BEFORE_TILES
}

/// An area as the kernel takes it here: what it lacks is not in use, nor is what this machine lacks.
pub(crate) fn whole(xstate: &[u8]) -> Vec<u8> {
    let mut area = xstate.to_vec();
    if !area.is_empty() {
        area.resize(*BYTES, 0);
    }
    area
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_the_last_of_a_whole_area() {
        let header = [0; HEADER + 64];
        let whole = whole(&header).len();
        assert!(whole > header.len());
        assert!(before_tiles().is_none_or(|tiles| tiles % 64 == 0 && tiles + 8192 < whole));
        assert_eq!(super::whole(&[]), []);
    }

    #[test]
    fn tiles_in_use_are_seen() {
        let mut area = vec![0; HEADER + 64];
        area[HEADER] = 0xff;
        assert!(!holds_tiles(&area) && holds(&area) == 0xff);
        area[HEADER + 2] = 2;
        assert!(holds_tiles(&area));
    }
}
