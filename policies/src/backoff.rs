//! How long to wait before another try, and when to give up.
use std::collections::VecDeque;
use std::str::FromStr;
use std::time::Duration;

use crate::{Unaccepted, duration};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);

/// The pause before try number `tries` (from 0) of an episode: 100 ms, doubling, up to 30 s.
#[must_use]
pub fn pause(tries: u32) -> Duration {
    2_u32.checked_pow(tries).map_or(LONGEST, |times| FIRST.saturating_mul(times).min(LONGEST))
}

/// `--restart-limit`: so many starts within a time; more is failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// How many.
    pub starts: usize,
    /// Within what.
    pub within: Duration,
}

impl Default for Limit {
    fn default() -> Self {
        Self { starts: 10, within: Duration::from_secs(60) }
    }
}

impl FromStr for Limit {
    type Err = Unaccepted;

    fn from_str(text: &str) -> Result<Self, Unaccepted> {
        let refused = || Unaccepted::new(text, "a limit like 10/60s: starts within a duration");
        let (starts, within) = text.split_once('/').ok_or_else(refused)?;
        let starts = starts.parse().ok().filter(|starts| *starts > 0).ok_or_else(refused)?;
        Ok(Self { starts, within: duration::parse_interval(within).map_err(|_| refused())? })
    }
}

/// The starts that still count. Times are durations since any fixed moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Starts(VecDeque<Duration>);

impl Starts {
    /// Counts a start, and says whether it is one too many.
    pub fn another(&mut self, now: Duration, limit: Limit) -> bool {
        let counts = |then: &Duration| now.saturating_sub(*then) < limit.within;
        self.0.retain(counts);
        self.0.push_back(now);
        self.0.len() > limit.starts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_half_a_minute() {
        let millis: Vec<_> = (0..10).map(|tries| pause(tries).as_millis()).collect();
        assert_eq!(millis, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000]);
        assert_eq!(pause(u32::MAX), LONGEST);
    }

    #[test]
    fn the_eleventh_start_in_a_minute_is_too_many() {
        let (mut starts, limit) = (Starts::default(), Limit::default());
        let too_many = (0..11).map(|i| starts.another(Duration::from_secs(i), limit));
        assert_eq!(too_many.filter(|too_many| *too_many).count(), 1);
        let mut starts = Starts::default();
        assert!((0..100).all(|i| !starts.another(Duration::from_secs(i * 6), limit)));
    }

    #[test]
    fn limits_are_read() {
        let found: Limit = "3/2m".parse().unwrap();
        assert_eq!((found.starts, found.within), (3, Duration::from_secs(120)));
        for bad in ["", "3", "0/1s", "3/0s", "x/1s", "3/x", "-1/1s"] {
            assert!(bad.parse::<Limit>().is_err(), "{bad}");
        }
    }
}
