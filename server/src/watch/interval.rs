//! Which ranges hold a key: single keys in a hash map, ranges in a balanced interval tree. Both an
//! event and a change of the set cost O(log n) however many ranges there are and however they
//! overlap; finding the matches costs O(log n) for each of them.

use std::cmp::Ordering;
use std::collections::HashMap;

use bytes::Bytes;
use ferrite_storage::mvcc::range::{End, KeyRange};

/// A value for each of a set of key ranges.
#[derive(Debug)]
pub(crate) struct IntervalIndex<V> {
    // Looked up only: its order is never seen.
    single: HashMap<Bytes, V>,
    ranges: Link<V>,
}

impl<V> Default for IntervalIndex<V> {
    fn default() -> Self {
        Self {
            single: HashMap::new(),
            ranges: None,
        }
    }
}

/// Where a range that is not a single key ends; `Before` orders below `Unbounded`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bound {
    Before(Bytes),
    Unbounded,
}

impl Bound {
    fn is_past(&self, key: &[u8]) -> bool {
        matches!(self, Bound::Before(end) if end.as_ref() <= key)
    }
}

/// A range as the tree orders it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    start: Bytes,
    end: Bound,
}

impl Span {
    /// `None` for a single key.
    fn of(range: &KeyRange) -> Option<Self> {
        let end = match range.end() {
            End::Single => return None,
            End::Unbounded => Bound::Unbounded,
            End::Before(end) => Bound::Before(end.clone()),
        };
        let start = range.start().clone();
        Some(Self { start, end })
    }
}

type Link<V> = Option<Box<Node<V>>>;

/// A node of an AVL tree ordered by span.
///
/// Invariants: the heights of `left` and `right` differ by at most 1; `reach` is the greatest end in
/// the subtree.
#[derive(Debug)]
struct Node<V> {
    span: Span,
    reach: Bound,
    height: u8,
    left: Link<V>,
    right: Link<V>,
    value: V,
}

impl<V> IntervalIndex<V> {
    /// The value of exactly this range.
    pub(crate) fn get_mut(&mut self, range: &KeyRange) -> Option<&mut V> {
        let Some(span) = Span::of(range) else {
            return self.single.get_mut(range.start());
        };
        let mut link = &mut self.ranges;
        while let Some(node) = link {
            match span.cmp(&node.span) {
                Ordering::Less => link = &mut node.left,
                Ordering::Greater => link = &mut node.right,
                Ordering::Equal => return Some(&mut node.value),
            }
        }
        None
    }

    /// Adds a range that is not there.
    pub(crate) fn insert(&mut self, range: &KeyRange, value: V) {
        let replaced = match Span::of(range) {
            None => self.single.insert(range.start().clone(), value).is_some(),
            Some(span) => insert(&mut self.ranges, span, value),
        };
        debug_assert!(!replaced, "{range:?} was there");
    }

    /// Takes a range out.
    pub(crate) fn remove(&mut self, range: &KeyRange) -> Option<V> {
        match Span::of(range) {
            None => self.single.remove(range.start()),
            Some(span) => remove(&mut self.ranges, &span),
        }
    }

    /// Shows the values of all ranges that hold `key`: the single key first, then by start.
    pub(crate) fn each_mut(&mut self, key: &[u8], mut show: impl FnMut(&mut V)) {
        if let Some(value) = self.single.get_mut(key) {
            show(value);
        }
        stab(&mut self.ranges, key, &mut show);
    }
}

fn stab<V>(link: &mut Link<V>, key: &[u8], show: &mut impl FnMut(&mut V)) {
    let Some(node) = link else { return };
    if node.reach.is_past(key) {
        return;
    }
    stab(&mut node.left, key, show);
    if node.span.start.as_ref() <= key {
        if !node.span.end.is_past(key) {
            show(&mut node.value);
        }
        stab(&mut node.right, key, show);
    }
}

/// Returns whether the span was there already; its value is replaced then.
fn insert<V>(link: &mut Link<V>, span: Span, value: V) -> bool {
    let Some(node) = link else {
        *link = Some(Box::new(Node {
            reach: span.end.clone(),
            span,
            height: 1,
            left: None,
            right: None,
            value,
        }));
        return false;
    };
    let replaced = match span.cmp(&node.span) {
        Ordering::Less => insert(&mut node.left, span, value),
        Ordering::Greater => insert(&mut node.right, span, value),
        Ordering::Equal => {
            node.value = value;
            return true;
        }
    };
    rebalance(link);
    replaced
}

fn remove<V>(link: &mut Link<V>, span: &Span) -> Option<V> {
    let node = link.as_mut()?;
    let removed = match span.cmp(&node.span) {
        Ordering::Less => remove(&mut node.left, span),
        Ordering::Greater => remove(&mut node.right, span),
        Ordering::Equal => {
            let mut node = link.take()?;
            *link = match (node.left.take(), node.right.take()) {
                (None, other) | (other, None) => other,
                (left, mut right) => {
                    let mut next = take_first(&mut right)?;
                    next.left = left;
                    next.right = right;
                    Some(next)
                }
            };
            Some(node.value)
        }
    };
    rebalance(link);
    removed
}

/// Takes the node with the least span out of a subtree.
fn take_first<V>(link: &mut Link<V>) -> Link<V> {
    if link.as_ref()?.left.is_some() {
        let first = take_first(&mut link.as_mut()?.left);
        rebalance(link);
        return first;
    }
    let mut first = link.take()?;
    *link = first.right.take();
    Some(first)
}

fn height<V>(link: &Link<V>) -> u8 {
    link.as_ref().map_or(0, |node| node.height)
}

/// Restores the invariants of a node whose children hold theirs, after one of them grew or shrank
/// by one level.
fn rebalance<V>(link: &mut Link<V>) {
    let Some(node) = link else { return };
    let (left, right) = (height(&node.left), height(&node.right));
    if left > right + 1 {
        if let Some(child) = &mut node.left
            && height(&child.right) > height(&child.left)
        {
            rotate_left(&mut node.left);
        }
        return rotate_right(link);
    }
    if right > left + 1 {
        if let Some(child) = &mut node.right
            && height(&child.left) > height(&child.right)
        {
            rotate_right(&mut node.right);
        }
        return rotate_left(link);
    }
    update(node);
}

fn rotate_left<V>(link: &mut Link<V>) {
    if let Some(mut node) = link.take() {
        if let Some(mut top) = node.right.take() {
            node.right = top.left.take();
            update(&mut node);
            top.left = Some(node);
            node = top;
        }
        update(&mut node);
        *link = Some(node);
    }
}

fn rotate_right<V>(link: &mut Link<V>) {
    if let Some(mut node) = link.take() {
        if let Some(mut top) = node.left.take() {
            node.left = top.right.take();
            update(&mut node);
            top.right = Some(node);
            node = top;
        }
        update(&mut node);
        *link = Some(node);
    }
}

fn update<V>(node: &mut Node<V>) {
    node.height = 1 + height(&node.left).max(height(&node.right));
    let children = [&node.left, &node.right];
    let reach = children
        .into_iter()
        .flatten()
        .map(|child| &child.reach)
        .fold(&node.span.end, |reach, child| reach.max(child));
    if node.reach != *reach {
        node.reach = reach.clone();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check<V>(link: &Link<V>) {
        let Some(node) = link else { return };
        check(&node.left);
        check(&node.right);
        let (left, right) = (height(&node.left), height(&node.right));
        assert!(left.abs_diff(right) <= 1, "heights {left} and {right}");
        assert_eq!(node.height, 1 + left.max(right));
        let children = [&node.left, &node.right].into_iter().flatten();
        let reach = children
            .map(|child| child.reach.clone())
            .fold(node.span.end.clone(), Ord::max);
        assert_eq!(node.reach, reach);
    }

    fn any_key() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(0u8..3, 0..4).prop_map(Bytes::from)
    }

    fn any_range() -> impl Strategy<Value = KeyRange> {
        let end = prop_oneof![
            1 => Just(Bytes::new()),
            1 => Just(Bytes::from_static(&[0])),
            3 => any_key(),
        ];
        (any_key(), end).prop_map(|(key, end)| {
            let range = KeyRange::new(key.clone(), &end);
            // Watchers of empty ranges are refused.
            match range.is_empty() {
                true => KeyRange::single(key),
                false => range,
            }
        })
    }

    proptest! {
        #[test]
        fn finds_what_a_list_finds(
            steps in prop::collection::vec((any_range(), any::<bool>()), 1..80),
            keys in prop::collection::vec(any_key(), 1..20),
        ) {
            let mut index = IntervalIndex::<KeyRange>::default();
            let mut list: Vec<KeyRange> = Vec::new();
            for (range, add) in steps {
                let at = list.iter().position(|other| *other == range);
                prop_assert_eq!(index.get_mut(&range).map(|value| value.clone()), at.map(|at| list[at].clone()));
                match (at, add) {
                    (None, true) => {
                        index.insert(&range, range.clone());
                        list.push(range);
                    }
                    (Some(at), false) => {
                        prop_assert_eq!(index.remove(&range), Some(list.swap_remove(at)));
                    }
                    (None, false) => prop_assert_eq!(index.remove(&range), None),
                    (Some(_), true) => {}
                }
                check(&index.ranges);
            }
            for key in keys {
                let mut found = Vec::new();
                index.each_mut(&key, |range| found.push(range.clone()));
                let mut expected: Vec<_> =
                    list.iter().filter(|range| range.contains(&key)).cloned().collect();
                let order = |range: &KeyRange| format!("{range:?}");
                found.sort_by_key(order);
                expected.sort_by_key(order);
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn many_ranges_stay_shallow() {
        let mut index = IntervalIndex::default();
        for n in 0..10_000_u32 {
            let key = Bytes::from(format!("{n:08}"));
            index.insert(&KeyRange::prefix(key), n);
        }
        assert!(height(&index.ranges) <= 20, "{}", height(&index.ranges));
        let mut found = Vec::new();
        index.each_mut(b"00001234/x", |n| found.push(*n));
        assert_eq!(found, [1234]);
    }
}
