//! What can be told of areas without asking the kernel: by the parent image, or by what most areas are.
//!
//! The image tells only of a space whose areas are still those, or have grown: whoever has got more is asked.
use super::flags;
use crate::inventory::{Inventory, Pid, Vma};
use crate::procfs::smaps::{self, Area};

/// What smaps would say, by the `maps` of now and the flags in an image.
pub(super) fn smaps(maps: &str, image: &Inventory, pid: Pid) -> Option<String> {
    let space = image.processes.get(&pid)?.space;
    with_flags(maps, &image.spaces.get(&space)?.vmas)
}

/// What smaps would say of most: that private areas have no flags that would change how they are captured.
/// Which shared ones can be written cannot be guessed, nor what devices are.
pub(super) fn most(maps: &str) -> Option<String> {
    let areas = smaps::parse(maps).ok()?;
    let plain = |area: &Area<'_>| !area.shared && !area.name.starts_with("/dev/");
    let flags = maps.lines().map(|line| (line, String::new()));
    areas.iter().all(plain).then(|| smaps::text(flags))
}

fn with_flags(maps: &str, vmas: &[Vma]) -> Option<String> {
    let areas = smaps::parse(maps).ok()?;
    let mut vmas = vmas.iter().peekable();
    let flags = |area: &Area<'_>| {
        while vmas.next_if(|vma| vma.end <= area.start).is_some() {}
        match vmas.peek().filter(|vma| vma.start < area.end) {
            Some(vma) if is_of(area, vma) => Some(vma.flags.join(" ")),
            None if area.name == "[vsyscall]" => Some(String::new()),
            _ => None,
        }
    };
    let flags: Vec<_> = areas.iter().map(flags).collect::<Option<_>>()?;
    Some(smaps::text(maps.lines().zip(flags)))
}

/// Whether an area is one of an image, or has grown out of it. Of huge pages more is asked than flags.
fn is_of(area: &Area<'_>, vma: &Vma) -> bool {
    let same = (area.start, area.end, area.prot) == (vma.start, vma.end, vma.prot);
    let may_grow = area.inode == 0 && !area.shared;
    let flags: Vec<_> = vma.flags.iter().map(String::as_str).collect();
    area.shared == vma.shared
        && (same || may_grow && !flags::stays(&flags))
        && !flags.contains(&"ht")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Backing;

    fn vma(start: u64, end: u64, flags: &[&str]) -> Vma {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Vma { start, end, prot: 3, shared: false, backing: Backing::Anonymous, flags, name: None }
    }

    #[test]
    fn only_of_private_areas_flags_are_guessed() {
        let heap = "1000-3000 rw-p 00000000 00:00 0 [heap]\n";
        let told = most(heap).unwrap();
        assert!(smaps::parse(&told).unwrap()[0].flags.is_empty());
        for other in ["8000-9000 rw-s 00000000 00:01 7 /file", "8000-9000 rw-p 0 00:01 7 /dev/mem"]
        {
            assert_eq!(most(&format!("{heap}{other}\n")), None, "{other}");
        }
    }

    #[test]
    fn what_is_as_it_was_or_has_grown_is_known() {
        let maps =
            "1000-3000 rw-p 00000000 00:00 0 [heap]\n8000-9000 rw-s 00000000 00:01 7 /file\n";
        let file = Vma { shared: true, ..vma(0x8000, 0x9000, &["mw"]) };
        let told = with_flags(maps, &[vma(0x1000, 0x2000, &["ac", "mg"]), file.clone()]).unwrap();
        let flags: Vec<_> =
            smaps::parse(&told).unwrap().into_iter().map(|area| area.flags).collect();
        assert_eq!(flags, [vec!["ac", "mg"], vec!["mw"]]);

        let moved = Vma { start: 0x7000, ..file.clone() };
        assert_eq!(with_flags(maps, &[vma(0x1000, 0x3000, &[]), moved]), None);
        assert_eq!(with_flags(maps, std::slice::from_ref(&file)), None);
        assert_eq!(with_flags(maps, &[vma(0x1000, 0x2000, &["wf"]), file.clone()]), None);
        assert_eq!(with_flags(maps, &[vma(0x1000, 0x3000, &["ht"]), file]), None);
    }
}
