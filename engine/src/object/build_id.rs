//! The build ID of an ELF file: a library that was installed again has another time, but the same ID.
//!
//! Format: `elf(5)`, note `NT_GNU_BUILD_ID`. Only 64-bit little-endian files are looked into, and
//! only their first pages, where linkers put it; for others a changed time is a change.
use std::fs::File;
use std::os::unix::fs::FileExt;

/// How much of a file is looked at.
const HEAD: usize = 16 << 10;
const PT_NOTE: u64 = 4;
const NT_GNU_BUILD_ID: u64 = 3;

/// The build ID of `file`; empty if it has none.
pub(super) fn of(file: &File) -> Vec<u8> {
    let mut head = vec![0; HEAD];
    let len = file.read_at(&mut head, 0).unwrap_or_default();
    head.truncate(len);
    find(&head).map(<[u8]>::to_vec).unwrap_or_default()
}

fn find(head: &[u8]) -> Option<&[u8]> {
    head.starts_with(b"\x7fELF\x02\x01").then_some(())?;
    let (table, size, count) = (word(head, 32, 8)?, word(head, 54, 2)?, word(head, 56, 2)?);
    (0..count).find_map(|index| {
        let at = table.checked_add(index * size)?;
        let note = word(head, at, 4)? == PT_NOTE;
        let (start, len) =
            (word(head, at.checked_add(8)?, 8)?, word(head, at.checked_add(32)?, 8)?);
        note.then(|| notes(slice(head, start, len)?)).flatten()
    })
}

/// Notes are name length, description length, type, name, description; each padded to 4 bytes.
fn notes(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let (name_len, len, kind) = (word(rest, 0, 4)?, word(rest, 4, 4)?, word(rest, 8, 4)?);
        let start = 12 + name_len.next_multiple_of(4);
        let description = slice(rest, start, len)?;
        if kind == NT_GNU_BUILD_ID && slice(rest, 12, name_len)? == b"GNU\0" {
            return Some(description);
        }
        rest = rest.get(usize::try_from(start + len.next_multiple_of(4)).ok()?..)?;
    }
}

fn slice(bytes: &[u8], start: u64, len: u64) -> Option<&[u8]> {
    let end = start.checked_add(len)?;
    bytes.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
}

fn word(bytes: &[u8], at: u64, len: u64) -> Option<u64> {
    let bytes = slice(bytes, at, len)?;
    Some(bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn our_own_is_found() {
        // Not every linker writes one into tests; the C library has one everywhere.
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = maps.lines().find(|line| line.contains("/libc.so.6")).unwrap();
        let path = libc.split_ascii_whitespace().last().unwrap();
        assert_eq!(of(&File::open(path).unwrap()).len(), 20);
        assert!(of(&File::open("/etc/passwd").unwrap()).is_empty());
    }

    proptest! {
        #[test]
        fn garbage_is_harmless(mut bytes: Vec<u8>) {
            bytes.splice(0..0, *b"\x7fELF\x02\x01");
            find(&bytes);
            notes(&bytes);
        }
    }
}
