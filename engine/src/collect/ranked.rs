//! Things told apart by an order that only the kernel knows.
use std::cmp::Ordering;

/// Kept sorted, so that finding one takes few comparisons.
#[derive(Debug, Clone)]
pub(super) struct Ranked<T>(Vec<T>);

impl<T> Default for Ranked<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Copy> Ranked<T> {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }

    /// The one that is equal, or where it would belong. `compare` tells how what is sought stands
    /// to one of ours.
    pub(super) fn search<E>(
        &self,
        mut compare: impl FnMut(&T) -> Result<Ordering, E>,
    ) -> Result<Result<T, usize>, E> {
        let (mut low, mut high) = (0, self.0.len());
        while let Some(middle) = self.0.get(low..high).and_then(|rest| rest.get(rest.len() / 2)) {
            let at = low + (high - low) / 2;
            match compare(middle)? {
                Ordering::Equal => return Ok(Ok(*middle)),
                Ordering::Less => high = at,
                Ordering::Greater => low = at + 1,
            }
        }
        Ok(Err(low))
    }

    /// Puts one where [`search`](Self::search) said it belongs.
    pub(super) fn insert(&mut self, place: usize, thing: T) {
        self.0.insert(place.min(self.0.len()), thing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[test]
    fn each_is_found_again() {
        let mut ranked = Ranked::default();
        for number in [5, 1, 9, 3, 7, 0, 8] {
            let found = ranked.search(|other| Ok::<_, Infallible>(number.cmp(other)));
            let Ok(Err(place)) = found else { panic!("{number} is new") };
            ranked.insert(place, number);
        }
        assert_eq!(ranked.0, [0, 1, 3, 5, 7, 8, 9]);
        for number in ranked.0.clone() {
            let found = ranked.search(|other| Ok::<_, Infallible>(number.cmp(other)));
            assert_eq!(found, Ok(Ok(number)));
        }
    }
}
