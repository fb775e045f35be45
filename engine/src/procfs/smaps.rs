//! `/proc/PID/smaps`: areas, as in `maps`, each with what the kernel tells of it.
//!
//! Kernel: `fs/proc/task_mmu.c` (`show_map_vma()`, `show_smap()`). Of the lines below an area only
//! those that are state are kept; the others count pages. `maps` itself is read likewise: there are none.
use crate::error::{Error, Result};

/// One area.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Area<'a> {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// `PROT_*`.
    pub(crate) prot: i32,
    pub(crate) shared: bool,
    pub(crate) offset: u64,
    /// Device and inode, as the file has them.
    pub(crate) device: &'a str,
    pub(crate) inode: u64,
    /// Path, `[heap]`, `[anon:...]`, or nothing.
    pub(crate) name: &'a str,
    /// The two-letter `VmFlags`.
    pub(crate) flags: Vec<&'a str>,
    /// `KernelPageSize`, in KiB.
    pub(crate) page_kib: u64,
    /// `ProtectionKey`, where there are any.
    pub(crate) key: u64,
    /// `Shared_Clean` and `Shared_Dirty`, in KiB: pages that others have too.
    pub(crate) shared_kib: u64,
}

impl Area<'_> {
    /// Whether `maps` tells of both by the same line.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        let place = |area: &Self| (area.start, area.end, area.prot, area.shared, area.offset);
        place(self) == place(other)
            && (self.device, self.inode, self.name) == (other.device, other.inode, other.name)
    }
}

/// All areas, ascending.
pub(crate) fn parse(text: &str) -> Result<Vec<Area<'_>>> {
    let mut areas: Vec<Area<'_>> = Vec::new();
    for line in text.lines() {
        let Some((key, value)) = detail(line) else {
            areas.push(header(line).ok_or_else(|| damaged(line))?);
            continue;
        };
        let area = areas.last_mut().ok_or_else(|| damaged(line))?;
        let number = || value.trim_end_matches(" kB").parse().map_err(|_| damaged(line));
        match key {
            "VmFlags" => area.flags = value.split_ascii_whitespace().collect(),
            "KernelPageSize" => area.page_kib = number()?,
            "ProtectionKey" => area.key = number()?,
            "Shared_Clean" | "Shared_Dirty" => area.shared_kib += number()?,
            _ => {}
        }
    }
    let ends = areas.iter().map(|area| area.end);
    let sound = areas.iter().skip(1).zip(ends).all(|(next, end)| end <= next.start);
    if sound { Ok(areas) } else { Err(damaged("areas that overlap")) }
}

/// The text of areas, each by its line of `maps`, with these flags.
pub(crate) fn text<'a>(areas: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let told = areas.into_iter().map(|(line, flags)| format!("{line}\nVmFlags: {flags}\n"));
    told.collect()
}

fn damaged(line: &str) -> Error {
    Error::Record(format!("smaps: {line}"), None)
}

/// A line below an area. Its key ends in a colon, which no address has.
fn detail(line: &str) -> Option<(&str, &str)> {
    let first = line.split(' ').next()?;
    let key = first.strip_suffix(':')?;
    Some((key, line.get(first.len()..)?.trim()))
}

fn header(line: &str) -> Option<Area<'_>> {
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let [read, write, execute, shared] = words.next()?.as_bytes() else { return None };
    let bit = |letter: u8, set: u8, value: i32| match letter {
        b'-' => Some(0),
        letter if letter == set => Some(value),
        _ => None,
    };
    let prot = bit(*read, b'r', 1)? | bit(*write, b'w', 2)? | bit(*execute, b'x', 4)?;
    let shared = match shared {
        b's' => true,
        b'p' => false,
        _ => return None,
    };
    let hex = |word| u64::from_str_radix(word, 16).ok();
    let area = Area {
        start: hex(start)?,
        end: hex(end)?,
        prot,
        shared,
        offset: hex(words.next()?)?,
        device: words.next()?,
        inode: words.next()?.parse().ok()?,
        name: words.next().unwrap_or_default().trim_start(),
        ..Area::default()
    };
    (area.start < area.end).then_some(area)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn our_own_areas_are_those_of_maps() {
        let text = std::fs::read_to_string("/proc/thread-self/smaps").unwrap();
        let areas = parse(&text).unwrap();
        let stack = areas.iter().find(|area| area.name == "[stack]").unwrap();
        assert_eq!((stack.prot, stack.shared, stack.page_kib), (3, false, 4));
        assert!(stack.flags.contains(&"gd"), "{stack:?}");
        let own = std::env::current_exe().unwrap();
        let own = areas.iter().find(|area| area.name == own.to_str().unwrap()).unwrap();
        assert_ne!(own.inode, 0);
    }

    #[test]
    fn names_keep_their_blanks_and_lines_their_place() {
        let text = "1000-3000 rw-s 00001000 fe:01 77                 /a name (deleted)\n\
                    KernelPageSize:        4 kB\nProtectionKey:         2\nVmFlags: rd wr sh mw \n\
                    Shared_Clean:  4 kB\nShared_Dirty:  8 kB\n";
        let [area] = parse(text).unwrap().try_into().unwrap();
        assert_eq!((area.name, area.key, area.inode), ("/a name (deleted)", 2, 77));
        assert_eq!(area.shared_kib, 12);
        assert_eq!(area.flags, ["rd", "wr", "sh", "mw"]);
        assert!(parse("VmFlags: rd\n").is_err(), "of no area");
        assert!(parse("2000-1000 rw-s 0 fe:01 77 /x\n").is_err());
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "([0-9a-f]{0,9}[-: ][ rwxps:a-z0-9/]{0,30}\n){0,4}") {
            drop(parse(&text));
        }
    }
}
