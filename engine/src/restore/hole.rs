//! A place for the shared area that is free in every address space concerned: ours and the image's.
use crate::error::{Error, Result};
use crate::inventory::Inventory;

/// Kept free on both sides: stacks grow, and the kernel keeps its distance from them.
const GUARD: u64 = 0x11_0000;
/// Below this, address 0 is near; above [`TOP`] there is no user memory.
const BOTTOM: u64 = 0x1000_0000;
const TOP: u64 = 0x7fff_f000_0000;

/// The lowest place for `len` bytes that none of `used` comes near.
pub(super) fn find(mut used: Vec<(u64, u64)>, len: u64) -> Result<u64> {
    used.sort_unstable();
    let mut at = BOTTOM;
    for (start, end) in used {
        if at + len + GUARD <= start {
            break;
        }
        at = at.max((end + GUARD + 0xfff) & !0xfff);
    }
    let fits = at + len <= TOP;
    fits.then_some(at).ok_or(Error::Kernel("mmap", nix::errno::Errno::ENOMEM))
}

/// All that is mapped in the image. The heap may grow to its next neighbour, but not while we are
/// there.
pub(super) fn used(inventory: &Inventory) -> impl Iterator<Item = (u64, u64)> {
    inventory.spaces.values().flat_map(|space| &space.vmas).map(|vma| (vma.start, vma.end))
}

/// All that is mapped here, from `/proc/self/maps`.
pub(super) fn own(maps: &str) -> impl Iterator<Item = (u64, u64)> {
    maps.lines().filter_map(|line| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_its_distance() {
        assert_eq!(find(vec![], 0x1000).unwrap(), BOTTOM);
        let at = find(vec![(0x40_0000, BOTTOM + 0x1000)], 0x1000).unwrap();
        assert!(at >= BOTTOM + 0x1000 + GUARD);
        let next = (BOTTOM + 0x3000, BOTTOM + 0x4000);
        assert!(find(vec![next], 0x1000).unwrap() >= next.1 + GUARD, "the gap is too small");
        assert!(find(vec![(0, TOP)], 0x1000).is_err());
    }

    #[test]
    fn reads_maps() {
        let text = "00400000-00452000 r-xp 00000000 08:02 173521 /usr/bin/dbus\n";
        assert_eq!(own(text).collect::<Vec<_>>(), [(0x40_0000, 0x45_2000)]);
    }
}
