//! Sizes, durations and times, as short as a table wants them.
use std::time::Duration;

use chrono::{DateTime, Local, Utc};

const SIZES: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// `512 B`, `1.5 MiB`, `23 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    let (mut whole, mut tenths, mut unit) = (bytes, 0, 0);
    while whole >= 1024 && unit + 1 < SIZES.len() {
        tenths = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit += 1;
    }
    let name = SIZES.get(unit).copied().unwrap_or("B");
    if unit == 0 || whole >= 10 {
        format!("{whole} {name}")
    } else {
        format!("{whole}.{tenths} {name}")
    }
}

/// `1.2 ms`, `340 ms`, `4.2 s`, `3m 20s`, from milliseconds.
pub(crate) fn millis(ms: f64) -> String {
    if ms < 10.0 {
        return format!("{ms:.1} ms");
    }
    if ms < 1_000.0 {
        return format!("{ms:.0} ms");
    }
    if ms < 60_000.0 {
        return format!("{:.1} s", ms / 1_000.0);
    }
    span(Duration::try_from_secs_f64(ms / 1_000.0).unwrap_or_default())
}

/// `12s`, `3m 20s`, `5h 3m`, `2d 4h`.
pub(crate) fn span(time: Duration) -> String {
    let all = time.as_secs();
    let (days, hours, minutes, seconds) = (all / 86_400, all / 3_600 % 24, all / 60 % 60, all % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {seconds}s"),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// How long ago that was.
pub(crate) fn ago(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    format!("{} ago", span((now - at).to_std().unwrap_or_default()))
}

/// In the reader's own time zone.
pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S").to_string()
}

/// RFC 3339 in UTC, for JSON.
pub(crate) fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// From milliseconds since 1970.
pub(crate) fn at_ms(ms: u64) -> DateTime<Utc> {
    i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10 << 20, "10 MiB"),
            ((3 << 30) + (512 << 20), "3.5 GiB"),
            (u64::MAX, "16777215 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn durations_are_short() {
        for (ms, text) in [
            (0.04, "0.0 ms"),
            (9.96, "10.0 ms"),
            (12.3, "12 ms"),
            (1_500.0, "1.5 s"),
            (200_000.0, "3m 20s"),
            (f64::NAN, "0s"),
        ] {
            assert_eq!(millis(ms), text);
        }
        assert_eq!(span(Duration::from_secs(90_000)), "1d 1h");
        assert_eq!(span(Duration::from_secs(3_720)), "1h 2m");
    }

    #[test]
    fn times_in_json_are_utc() {
        assert_eq!(rfc3339(at_ms(1_500)), "1970-01-01T00:00:01.500Z");
    }
}
