//! Keeps the leases that a new leader takes over from ending all at once.

use std::collections::HashMap;
use std::time::Duration;

/// Deals out seconds, each to a bounded number of leases.
#[derive(Debug, Default)]
pub(super) struct Spread {
    /// How many a second has got.
    taken: HashMap<u64, usize>,
    /// For a second that is full: where to look on. Shortened as it is used.
    next: HashMap<u64, u64>,
}

impl Spread {
    /// The time of a lease that would end at `at`: then, or as many whole seconds later as it takes
    /// to find one in which fewer than `limit` end.
    pub(super) fn place(&mut self, at: Duration, limit: usize) -> Duration {
        let wanted = at.as_secs();
        let mut second = wanted;
        while let Some(next) = self.next.get(&second) {
            second = *next;
        }
        if second > wanted {
            self.next.insert(wanted, second);
        }
        let taken = self.taken.entry(second).or_default();
        *taken += 1;
        if *taken >= limit {
            self.next.insert(second, second.saturating_add(1));
            self.taken.remove(&second);
        }
        at.saturating_add(Duration::from_secs(second - wanted))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn no_second_gets_more_than_its_limit_and_nobody_comes_early() {
        let mut spread = Spread::default();
        let mut ends: BTreeMap<u64, usize> = BTreeMap::new();
        // Three crowds that run into one another.
        let wanted = [5_250, 6_000, 20_000].map(Duration::from_millis);
        for n in 0..90 {
            let at = wanted[n % 3];
            let placed = spread.place(at, 10);
            assert!(placed >= at);
            assert_eq!(placed.subsec_nanos(), at.subsec_nanos());
            *ends.entry(placed.as_secs()).or_default() += 1;
        }
        assert!(ends.values().all(|count| *count <= 10), "{ends:?}");
        // As early as that allows: six full seconds from 5, three from 20.
        let seconds: Vec<_> = ends.into_keys().collect();
        assert_eq!(seconds, [5, 6, 7, 8, 9, 10, 20, 21, 22]);
    }
}
