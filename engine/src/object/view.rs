//! What people are shown of an object: `snapd show`.
use nix::libc::{
    CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_REALTIME, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET,
    SOCK_STREAM,
};

/// One object, as held by one of its ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// What `/proc/PID/fd` would show, or nearly; empty if nothing but its kind is to be said.
    pub target: String,
    /// If it is a socket.
    pub socket: Option<SocketView>,
    /// If it is a timer.
    pub timer: Option<TimerView>,
}

/// A socket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SocketView {
    /// `unix`, `inet` or `inet6`.
    pub family: &'static str,
    /// `stream`, `dgram`, `seqpacket` or `raw`.
    pub sort: &'static str,
    /// Its own address, as far as it has one.
    pub local: String,
    /// The other side's.
    pub peer: String,
    /// `listening`, `connected` or `unconnected`.
    pub state: &'static str,
}

/// A timer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TimerView {
    /// `realtime`, `monotonic`, `boottime`, or the number.
    pub clock: String,
    /// Nanoseconds until it expires; 0: it does not run.
    pub remaining_ns: i64,
    /// Nanoseconds from one expiration to the next; 0: there is only one.
    pub interval_ns: i64,
}

impl View {
    /// Something with a name.
    pub(super) fn of(target: impl Into<String>) -> Self {
        Self { target: target.into(), ..Self::default() }
    }
}

/// The word for `SOCK_*`.
pub(super) fn sort(kind: i32) -> &'static str {
    match kind {
        SOCK_STREAM => "stream",
        SOCK_DGRAM => "dgram",
        SOCK_SEQPACKET => "seqpacket",
        SOCK_RAW => "raw",
        _ => "unknown",
    }
}

/// `sun_path` as people write it: abstract names with an `@`.
pub(super) fn unix_name(path: &[u8]) -> String {
    match path.split_first() {
        Some((0, name)) => format!("@{}", String::from_utf8_lossy(name)),
        _ => String::from_utf8_lossy(path).into_owned(),
    }
}

/// The word for `CLOCK_*`.
pub(crate) fn clock(number: i32) -> String {
    match number {
        CLOCK_REALTIME => "realtime".into(),
        CLOCK_MONOTONIC => "monotonic".into(),
        CLOCK_BOOTTIME => "boottime".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abstract_names_are_told_from_paths() {
        assert_eq!(unix_name(b"\0a"), "@a");
        assert_eq!(unix_name(b"/run/a"), "/run/a");
        assert_eq!(unix_name(b""), "");
    }
}
