//! Lines: which snapshots a workload's present state descends from.
//!
//! Numbers only grow, and rolling back only cuts, so a line is a set of spans of numbers: after
//! `1 2 3 4 5` and a rollback to 3 it is `1-3`, and with the next snapshot `1-3,6`. Such a set says
//! who belongs even when snapshots in between are long forgotten, which parent pointers alone could
//! not. Every manifest carries the line that ends in it.
use std::fmt;
use std::ops::RangeInclusive;

/// The snapshots that the present descends from, as ascending, disjoint spans of numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Line {
    spans: Vec<RangeInclusive<u64>>,
}

impl Line {
    /// Makes a line of spans, dropping what is empty, and refusing what is not ascending.
    pub fn from_spans(spans: impl IntoIterator<Item = (u64, u64)>) -> Option<Self> {
        let mut line = Self::default();
        for (first, last) in spans {
            let after = line.newest().map_or(0, |newest| newest.saturating_add(1));
            if first > last || first < after {
                return None;
            }
            line.spans.push(first..=last);
        }
        Some(line)
    }

    /// The spans, oldest first.
    pub fn spans(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.spans.iter().map(|span| (*span.start(), *span.end()))
    }

    /// The number that the line ends with, whether or not that snapshot still exists.
    #[must_use]
    pub fn newest(&self) -> Option<u64> {
        self.spans.last().map(|span| *span.end())
    }

    /// Says whether snapshot `seq` is on the line.
    #[must_use]
    pub fn contains(&self, seq: u64) -> bool {
        self.spans.iter().any(|span| span.contains(&seq))
    }

    /// The line as it was when `seq` was its newest.
    #[must_use]
    pub fn up_to(&self, seq: u64) -> Self {
        let spans = self.spans.iter().filter(|span| *span.start() <= seq);
        Self { spans: spans.map(|span| *span.start()..=(*span.end()).min(seq)).collect() }
    }

    /// The line with `seq` as its new end.
    ///
    /// A number that follows its predecessor directly extends the last span, so that an
    /// undisturbed workload has one span for ever.
    #[must_use]
    pub fn then(&self, seq: u64) -> Self {
        let mut line = self.clone();
        match line.spans.last_mut() {
            Some(span) if *span.end() >= seq => {}
            Some(span) if span.end().checked_add(1) == Some(seq) => *span = *span.start()..=seq,
            _ => line.spans.push(seq..=seq),
        }
        line
    }

    /// Drops spans that end before `oldest`: nothing that still exists is in them.
    #[must_use]
    pub fn since(&self, oldest: u64) -> Self {
        Self { spans: self.spans.iter().filter(|span| *span.end() >= oldest).cloned().collect() }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, span) in self.spans.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match (span.start(), span.end()) {
                (first, last) if first == last => write!(f, "{comma}{first}")?,
                (first, last) => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(spans: &[(u64, u64)]) -> Line {
        Line::from_spans(spans.iter().copied()).unwrap()
    }

    #[test]
    fn an_undisturbed_workload_has_one_span() {
        let line = (1..=5).fold(Line::default(), |line, seq| line.then(seq));
        assert_eq!(line.to_string(), "1-5");
    }

    #[test]
    fn a_rollback_leaves_out_what_it_abandons() {
        let back = line(&[(1, 5)]).up_to(3);
        assert_eq!(back.to_string(), "1-3");
        let on = back.then(6).then(7);
        assert_eq!(on.to_string(), "1-3,6-7");
        assert!(on.contains(3) && on.contains(6) && !on.contains(4) && !on.contains(5));
        assert_eq!(on.up_to(6).then(8).to_string(), "1-3,6,8");
        assert_eq!(on.up_to(5).to_string(), "1-3");
    }

    #[test]
    fn starting_fresh_forgets_the_line_but_not_the_numbers() {
        assert_eq!(Line::default().then(9).to_string(), "9");
        assert_eq!(Line::default().newest(), None);
    }

    #[test]
    fn spans_that_hold_nothing_are_dropped() {
        assert_eq!(line(&[(1, 3), (6, 7), (9, 12)]).since(7).to_string(), "6-7,9-12");
    }

    #[test]
    fn spans_from_a_file_must_ascend() {
        assert!(Line::from_spans([(3, 2)]).is_none());
        assert!(Line::from_spans([(1, 3), (3, 4)]).is_none());
        assert!(Line::from_spans([(5, 6), (1, 2)]).is_none());
        assert!(Line::from_spans([(1, u64::MAX), (0, 1)]).is_none());
    }
}
