//! Ranges of addresses: what meets, and what is left.

/// Ranges of pages, ascending, neighbours joined.
pub(crate) type Ranges = Vec<(u64, u64)>;

/// Ascending ranges, those that touch or overlap joined.
pub(super) fn joined(ranges: &Ranges) -> Ranges {
    near(ranges, 0)
}

/// Ascending ranges, those joined that are not farther from each other than `gap`.
pub(super) fn near(ranges: &Ranges, gap: u64) -> Ranges {
    let mut all = Ranges::new();
    for (start, end) in ranges {
        match all.last_mut() {
            Some(last) if last.1 + gap >= *start => last.1 = last.1.max(*end),
            _ => all.push((*start, *end)),
        }
    }
    all
}

/// How many bytes.
pub(super) fn length(ranges: &Ranges) -> usize {
    ranges.iter().map(bytes).fold(0, usize::saturating_add)
}

/// How many one range is.
pub(super) fn bytes((start, end): &(u64, u64)) -> usize {
    usize::try_from(end - start).unwrap_or(usize::MAX)
}

/// Whether any of `ranges` meets this one.
pub(super) fn overlaps(ranges: &Ranges, start: u64, end: u64) -> bool {
    let at = ranges.partition_point(|range| range.1 <= start);
    ranges.get(at).is_some_and(|range| range.0 < end)
}

/// What of `ranges` is within `within`. Fast where either is few, and the other thousands.
pub(crate) fn intersect(ranges: &Ranges, within: &Ranges) -> Ranges {
    let mut found = Vec::new();
    let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { return found };
    let begin = within.partition_point(|range| range.1 <= first.0);
    for &(start, end) in within.iter().skip(begin).take_while(|range| range.0 < last.1) {
        let first = ranges.partition_point(|range| range.1 <= start);
        for &(a, b) in ranges.iter().skip(first).take_while(|range| range.0 < end) {
            found.push((a.max(start), b.min(end)));
        }
    }
    found
}

/// What of `ranges` is not in `others`.
pub(crate) fn without(ranges: &Ranges, others: &Ranges) -> Ranges {
    let mut left = Vec::new();
    for &(mut start, end) in ranges {
        let first = others.partition_point(|range| range.1 <= start);
        for &(a, b) in others.iter().skip(first).take_while(|range| range.0 < end) {
            if a > start {
                left.push((start, a));
            }
            start = start.max(b);
        }
        if start < end {
            left.push((start, end));
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_meet_and_part() {
        let (a, b) = (vec![(0, 4), (6, 9)], vec![(2, 7)]);
        assert_eq!(intersect(&a, &b), [(2, 4), (6, 7)]);
        assert_eq!(intersect(&b, &a), [(2, 4), (6, 7)]);
        assert_eq!(intersect(&b, &vec![(0, 1), (2, 3), (7, 8)]), [(2, 3)]);
        assert_eq!(without(&a, &b), [(0, 2), (7, 9)]);
        assert!(overlaps(&a, 3, 5) && !overlaps(&a, 4, 6));
        assert_eq!((length(&a), joined(&vec![(0, 4), (4, 5)])), (7, vec![(0, 5)]));
    }
}
