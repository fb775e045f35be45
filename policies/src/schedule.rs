//! When the next snapshot is due: `--every` and `--cron`.
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, TimeZone, Utc};

use crate::{Unaccepted, duration};

const CRON: &str = "a cron expression like \"*/5 * * * *\" or \"0 30 9 * * Mon-Fri\"";

/// A schedule: what comes first of its parts.
#[derive(Debug, Clone, Default)]
pub struct Schedule {
    every: Option<Duration>,
    cron: Option<cron::Schedule>,
}

impl Schedule {
    /// Adds an interval.
    pub fn every(mut self, text: &str) -> Result<Self, Unaccepted> {
        self.every = Some(duration::parse_interval(text)?);
        Ok(self)
    }

    /// Adds an interval that has been read already; zero is none.
    #[must_use]
    pub fn interval(mut self, every: Duration) -> Self {
        self.every = (!every.is_zero()).then_some(every);
        self
    }

    /// Adds a cron expression: five fields as in crontab(5), or six with seconds first.
    pub fn cron(mut self, text: &str) -> Result<Self, Unaccepted> {
        let fields = text.split_whitespace().count();
        let whole = if fields == 5 { format!("0 {text}") } else { text.to_owned() };
        let read = cron::Schedule::from_str(&whole);
        self.cron = Some(read.map_err(|_| Unaccepted::new(text, CRON))?);
        Ok(self)
    }

    /// Says whether anything is ever due.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.every.is_none() && self.cron.is_none()
    }

    /// When the next one is due after `now`, `first` being when the schedule began.
    ///
    /// Intervals are counted from there, so that they do not drift; and what was missed while a
    /// snapshot took longer than an interval, or the machine slept, is not made up for.
    #[must_use]
    pub fn next<Z: TimeZone>(
        &self,
        first: DateTime<Utc>,
        now: &DateTime<Z>,
    ) -> Option<DateTime<Utc>> {
        let every = self.every.and_then(|every| next_tick(first, every, now.to_utc()));
        let cron = self.cron.as_ref().and_then(|cron| cron.after(now).next());
        every.into_iter().chain(cron.map(|at| at.to_utc())).min()
    }
}

fn next_tick(first: DateTime<Utc>, every: Duration, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let every = i64::try_from(every.as_millis()).ok()?;
    let gone = now.signed_duration_since(first).num_milliseconds().max(0);
    let ticks = gone.checked_div(every)?.checked_add(1)?;
    first.checked_add_signed(TimeDelta::try_milliseconds(ticks.checked_mul(every)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-11-24T{text}Z").parse().unwrap()
    }

    fn next(schedule: &Schedule, now: &str) -> DateTime<Utc> {
        schedule.next(at("10:00:00"), &at(now)).unwrap()
    }

    #[test]
    fn intervals_do_not_drift_and_missed_ones_are_one() {
        let schedule = Schedule::default().every("10s").unwrap();
        assert_eq!(next(&schedule, "10:00:00"), at("10:00:10"));
        assert_eq!(next(&schedule, "10:00:09.999"), at("10:00:10"));
        assert_eq!(next(&schedule, "10:00:10"), at("10:00:20"));
        assert_eq!(next(&schedule, "10:07:03"), at("10:07:10"));
        // A clock that was set back does not stop the snapshots for longer than that.
        assert_eq!(next(&schedule, "09:00:00"), at("10:00:10"));
    }

    #[test]
    fn cron_has_five_fields_or_six() {
        let five = Schedule::default().cron("*/5 * * * *").unwrap();
        assert_eq!(next(&five, "10:01:00"), at("10:05:00"));
        let six = Schedule::default().cron("30 0 12 * * *").unwrap();
        assert_eq!(next(&six, "10:01:00"), at("12:00:30"));
    }

    #[test]
    fn what_comes_first_is_next() {
        let both = Schedule::default().every("1h").unwrap().cron("30 * * * *").unwrap();
        assert_eq!(next(&both, "10:01:00"), at("10:30:00"));
        assert_eq!(next(&both, "10:31:00"), at("11:00:00"));
        assert!(Schedule::default().next(at("10:00:00"), &at("10:00:00")).is_none());
    }

    #[test]
    fn bad_ones_are_refused_with_what_is_accepted() {
        assert!(Schedule::default().every("0s").is_err());
        assert!(Schedule::default().every("x").is_err());
        for bad in ["", "* * *", "61 * * * *", "whenever"] {
            let refused = Schedule::default().cron(bad).unwrap_err();
            assert!(refused.to_string().contains("cron expression"), "{bad}");
        }
    }
}
