//! Sizes: `64MiB`, `2GiB`, `1000B`; decimal units too (`5MB`).
use crate::Unaccepted;

const ACCEPTED: &str = "a size like 4096B, 64MiB, 2GiB or 5MB";
const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Reads a size in bytes.
pub fn parse(text: &str) -> Result<u64, Unaccepted> {
    bytes(text).ok_or_else(|| Unaccepted::new(text, ACCEPTED))
}

fn bytes(text: &str) -> Option<u64> {
    let (count, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, each) = UNITS.iter().find(|(name, _)| *name == unit)?;
    count.parse::<u64>().ok()?.checked_mul(*each)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [("64MiB", 64 << 20), ("2GiB", 2 << 30), ("0B", 0), ("5MB", 5_000_000)]
        {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for bad in ["", "64", "MiB", "-1MiB", "1.5GiB", "1 GiB", "1gib", "99999999999TiB"] {
            assert!(parse(bad).unwrap_err().to_string().contains("64MiB"), "{bad}");
        }
    }
}
