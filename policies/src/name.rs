//! Names of workloads and references to snapshots: `NAME`, `NAME@3`, `NAME@-1`.
use std::fmt;
use std::str::FromStr;

use crate::Unaccepted;

const NAME: &str = "a name: a to z, 0 to 9, then also . _ and -, at most 63 characters";
const REFERENCE: &str = "a snapshot: NAME, NAME@3, or NAME@-1 for the one before the newest";
const LENGTH_MAX: usize = 63;

/// Checks the name of a workload.
pub fn check(name: &str) -> Result<(), Unaccepted> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let first = name.bytes().next().is_some_and(plain);
    let rest = name.bytes().all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'));
    if first && rest && name.len() <= LENGTH_MAX {
        return Ok(());
    }
    Err(Unaccepted::new(name, NAME))
}

/// Makes a name of the command that is to run, different from those that are taken.
pub fn from_command(command: &str, taken: impl Fn(&str) -> bool) -> String {
    let base = command.rsplit('/').next().unwrap_or(command).to_ascii_lowercase();
    let fit =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    let mut name: String = base.chars().map(|c| if fit(c) { c } else { '-' }).take(48).collect();
    if !name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()) {
        name.insert(0, 'w');
    }
    let numbered = |n: u64| if n == 1 { name.clone() } else { format!("{name}-{n}") };
    (1..u64::MAX).map(numbered).find(|name| !taken(name)).unwrap_or_default()
}

/// Which of a workload's snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// So many before the newest of the current line.
    Back(u64),
    /// The one with this number, wherever it is.
    Number(u64),
}

/// A workload, or one of its snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The workload.
    pub name: String,
    /// The snapshot.
    pub which: Which,
}

impl FromStr for Reference {
    type Err = Unaccepted;

    fn from_str(text: &str) -> Result<Self, Unaccepted> {
        let (name, which) = match text.split_once('@') {
            None => (text, Which::Back(0)),
            Some((name, which)) => {
                (name, read(which).ok_or_else(|| Unaccepted::new(text, REFERENCE))?)
            }
        };
        check(name)?;
        Ok(Self { name: name.to_owned(), which })
    }
}

fn read(which: &str) -> Option<Which> {
    let (back, digits) = match which.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, which),
    };
    let proper = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let number = digits.parse().ok().filter(|number| proper && *number > 0)?;
    Some(if back { Which::Back(number) } else { Which::Number(number) })
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.which {
            Which::Back(0) => f.write_str(&self.name),
            Which::Back(back) => write!(f, "{}@-{back}", self.name),
            Which::Number(number) => write!(f, "{}@{number}", self.name),
        }
    }
}

impl Which {
    /// The number meant, given the restorable snapshots of the current line, newest first.
    #[must_use]
    pub fn resolve(self, newest_first: &[u64]) -> Option<u64> {
        match self {
            Self::Number(number) => Some(number),
            Self::Back(back) => newest_first.get(usize::try_from(back).ok()?).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn references_are_read() {
        let which = |text: &str| text.parse::<Reference>().unwrap().which;
        assert_eq!(which("web"), Which::Back(0));
        assert_eq!(which("web@3"), Which::Number(3));
        assert_eq!(which("web@-1"), Which::Back(1));
        assert_eq!(Which::Back(0).resolve(&[9, 7]), Some(9));
        assert_eq!(Which::Back(1).resolve(&[9, 7]), Some(7));
        assert_eq!(Which::Back(2).resolve(&[9, 7]), None);
    }

    #[test]
    fn others_are_refused() {
        for bad in [
            "",
            "@1",
            "web@",
            "web@0",
            "web@-0",
            "web@x",
            "web@+1",
            "web@1@2",
            "Web",
            ".a",
            "a/b",
            "web@99999999999999999999",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
        assert!(check(&"a".repeat(63)).is_ok());
        assert!(check(&"a".repeat(64)).is_err());
    }

    #[test]
    fn a_command_gives_a_name_that_is_free() {
        assert_eq!(from_command("/usr/bin/python3", |_| false), "python3");
        assert_eq!(from_command("./My Prog!", |name| name == "my-prog-"), "my-prog--2");
        assert_eq!(from_command("-x", |_| false), "w-x");
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer(text in "\\PC*") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>(), Ok(reference));
            }
        }

        #[test]
        fn any_command_gives_a_proper_name(command in "\\PC*") {
            prop_assert!(check(&from_command(&command, |_| false)).is_ok());
        }
    }
}
