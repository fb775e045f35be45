//! Monotonic and boot time go on where the image left them: in a time namespace of the tree's own.
//!
//! Its offsets count from the host's clocks, and can be set until somebody is born into it: so before
//! the first blank. Kernel: `time_namespaces(7)`, since 5.6.
use nix::libc::{CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLONE_NEWTIME};
use nix::sched::{CloneFlags, setns, unshare};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::gettid;
use std::fmt::Write as _;
use std::fs::File;

use crate::error::{Error, Result, kernel, kernel_io};
use crate::inventory::Clocks;

const SECOND: i64 = 1_000_000_000;

/// Whoever is forked from now on sees `clocks` go on. Returns the namespace for those of whom we want that
/// no more.
pub(super) fn go_on(clocks: Clocks) -> Result<File> {
    let own = File::open("/proc/thread-self/ns/time").map_err(kernel_io("open"))?;
    unshare(CloneFlags::from_bits_retain(CLONE_NEWTIME)).map_err(kernel("unshare"))?;
    // Of this very thread: the namespace is for its children only.
    let path = format!("/proc/{}/timens_offsets", gettid());
    let text = std::fs::read_to_string(&path).map_err(kernel_io("read"))?;
    let mut lines = String::new();
    let wanted = [
        ("monotonic", CLOCK_MONOTONIC, clocks.monotonic),
        ("boottime", CLOCK_BOOTTIME, clocks.boottime),
    ];
    for (name, clock, then) in wanted {
        let now = clock_gettime(ClockId::from_raw(clock)).map_err(kernel("clock_gettime"))?;
        let now = now.tv_sec() * SECOND + now.tv_nsec();
        let damaged = || Error::Record("timens_offsets".into(), None);
        let offset = offset(&text, name).ok_or_else(damaged)? + then - now;
        let (seconds, rest) = (offset.div_euclid(SECOND), offset.rem_euclid(SECOND));
        let _ = writeln!(lines, "{name} {seconds} {rest}");
    }
    std::fs::write(&path, lines).map_err(kernel_io("write"))?;
    Ok(own)
}

/// Before 6.2 the kernel starts no thread for whoever's children are to be in another namespace than itself.
/// Since then it does not matter that this can fail, while a thread of ours is still ending.
pub(super) fn come_back(own: &File) {
    if let Err(error) = setns(own, CloneFlags::from_bits_retain(CLONE_NEWTIME)) {
        tracing::debug!(%error, "still with the clocks of the tree");
    }
}

/// What the namespace, a copy of ours as yet, adds to the host's clock.
fn offset(text: &str, clock: &str) -> Option<i64> {
    let line = text.lines().find(|line| line.starts_with(clock))?;
    let mut numbers = line.split_whitespace().skip(1).map(str::parse::<i64>);
    Some(numbers.next()?.ok()? * SECOND + numbers.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_read() {
        let text = "monotonic           -2         5\nboottime             0         0\n";
        assert_eq!(offset(text, "monotonic"), Some(-2 * SECOND + 5));
        assert_eq!(offset(text, "boottime"), Some(0));
    }
}
