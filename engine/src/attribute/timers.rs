//! Timers of a process: the three of setitimer(2), and those of `timer_create(2)`.
pub(super) mod interval;
pub(super) mod posix;

/// Interval and rest of a `struct itimerspec` or `itimerval`, in nanoseconds; `fine`: the smaller
/// unit is nanoseconds, not microseconds.
fn nanoseconds(setting: &[u8], fine: bool) -> Option<(i64, i64)> {
    let (words, _) = setting.as_chunks::<8>();
    let [seconds, fraction, rest_seconds, rest_fraction] = *words else { return None };
    let unit = if fine { 1 } else { 1_000 };
    let total = |seconds: [u8; 8], fraction: [u8; 8]| {
        let whole = i64::from_ne_bytes(seconds).saturating_mul(1_000_000_000);
        whole.saturating_add(i64::from_ne_bytes(fraction).saturating_mul(unit))
    };
    Some((total(seconds, fraction), total(rest_seconds, rest_fraction)))
}
