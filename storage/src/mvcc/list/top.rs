//! Sorting with a limit, in memory for two answers.

use std::cmp::Reverse;

/// Below this many pairs it is not worth to sort in between.
const LEAST: usize = 1024;

/// Keeps the first `limit` pairs of an order. Ties stay as they came, in both directions: etcd
/// leaves them undefined, and its sort does the same with a dozen pairs or less.
pub(super) struct Top<O, P> {
    limit: usize,
    descending: bool,
    kept: Vec<(O, P)>,
    /// Whether something was dropped.
    more: bool,
}

impl<O: Ord, P> Top<O, P> {
    pub(super) fn new(limit: Option<u64>, descending: bool) -> Self {
        let limit = limit.and_then(|limit| usize::try_from(limit).ok());
        Self {
            limit: limit.unwrap_or(usize::MAX),
            descending,
            kept: Vec::new(),
            more: false,
        }
    }

    pub(super) fn push(&mut self, order: O, pair: P) {
        if self.kept.len() >= self.limit.saturating_mul(2).max(LEAST) {
            self.cut();
        }
        self.kept.push((order, pair));
    }

    fn cut(&mut self) {
        // Stable: what was kept before comes before what is equal and came later.
        if self.descending {
            self.kept.sort_by(|a, b| Reverse(&a.0).cmp(&Reverse(&b.0)));
        } else {
            self.kept.sort_by(|a, b| a.0.cmp(&b.0));
        }
        self.more |= self.limit < self.kept.len();
        self.kept.truncate(self.limit);
    }

    /// The pairs, the first one last, and whether there were more than the limit.
    pub(super) fn finish(mut self) -> (Vec<P>, bool) {
        self.cut();
        let pairs = self.kept.into_iter().rev().map(|(_, pair)| pair);
        (pairs.collect(), self.more)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn as_sorting_everything(
            orders in prop::collection::vec(0_u8..20, 0..5 * LEAST),
            limit in prop::option::of(1_u64..2000),
            descending in any::<bool>(),
        ) {
            let mut top = Top::new(limit, descending);
            let mut all: Vec<(u8, usize)> = orders.into_iter().zip(0..).collect();
            all.iter().for_each(|(order, pair)| top.push(*order, *pair));
            let (mut got, more) = top.finish();
            got.reverse();
            let limit = limit.map_or(usize::MAX, |limit| limit as usize);
            prop_assert_eq!(more, limit < all.len());
            if descending {
                all.sort_by_key(|(order, pair)| (Reverse(*order), *pair));
            } else {
                all.sort_unstable();
            }
            let expected: Vec<usize> = all.into_iter().take(limit).map(|(_, pair)| pair).collect();
            prop_assert_eq!(got, expected);
        }
    }
}
