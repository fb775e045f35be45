//! Durations: `500ms`, `10s`, `5m`, `1h30m`, `2d`.
//!
//! Whole numbers with units, the larger unit first, each at most once. No sign, no spaces, no bare
//! number: `--every 10` could mean anything.
use std::time::Duration;

use crate::Unaccepted;

const ACCEPTED: &str = "a duration like 500ms, 10s, 5m, 1h30m or 2d";
const POSITIVE: &str = "a duration above zero, like 500ms, 10s, 5m, 1h30m or 2d";
/// Units with their milliseconds, the larger first.
const UNITS: [(&str, u64); 6] = [
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Reads a duration.
pub fn parse(text: &str) -> Result<Duration, Unaccepted> {
    millis(text).map(Duration::from_millis).ok_or_else(|| Unaccepted::new(text, ACCEPTED))
}

/// Reads a duration that must not be zero: an interval.
pub fn parse_interval(text: &str) -> Result<Duration, Unaccepted> {
    let found = parse(text)?;
    if found.is_zero() {
        return Err(Unaccepted::new(text, POSITIVE));
    }
    Ok(found)
}

fn millis(text: &str) -> Option<u64> {
    let (mut rest, mut total, mut units) = (text, 0_u64, UNITS.iter());
    while !rest.is_empty() {
        let (count, after) = split(rest, |c| c.is_ascii_digit());
        let (unit, after) = split(after, |c| c.is_ascii_alphabetic());
        let (_, each) = units.by_ref().find(|(name, _)| *name == unit)?;
        total = total.checked_add(count.parse::<u64>().ok()?.checked_mul(*each)?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

/// Splits off what comes first and is of a kind.
fn split(text: &str, kind: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !kind(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read() {
        for (text, millis) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("2d", 172_800_000),
            ("1w", 604_800_000),
            ("0s", 0),
            ("1s500ms", 1500),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_is_accepted() {
        for bad in [
            "",
            "x",
            "10",
            "s",
            "-1s",
            "1.5s",
            "1 s",
            "1s1h",
            "1s1s",
            "1y",
            "99999999999999999999s",
            "9999999999999999w",
            "1S",
            "٣s",
        ] {
            let refused = parse(bad).unwrap_err();
            assert!(refused.to_string().contains("1h30m"), "{bad}");
            assert_eq!(refused.value, bad);
        }
        let zero = parse_interval("0s").unwrap_err();
        assert!(zero.to_string().contains("above zero"));
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer(text in "\\PC*") {
            drop(parse(&text));
        }

        #[test]
        fn what_is_written_is_read(h in 0_u64..100, m in 0_u64..100, s in 0_u64..100) {
            let found = parse(&format!("{h}h{m}m{s}s")).unwrap();
            prop_assert_eq!(found.as_secs(), h * 3600 + m * 60 + s);
        }
    }
}
