//! Walking the leaves of a range in key order, skipping subtrees by their summaries.

use std::ops::Range;

use super::leaf::Leaf;
use super::node::{Child, Inner, Node, Summary};
use super::{Change, KeyIndex};
use crate::mvcc::range::KeyRange;

/// An inner node on the way to the next leaf.
struct Step<'a> {
    inner: &'a Inner,
    /// The children still to be visited.
    rest: Range<usize>,
    /// Whether keys behind the range can be below the last of them.
    bounded: bool,
}

/// The leaves of a range with the slots that are in it.
pub(super) struct Leaves<'a, F> {
    range: KeyRange,
    wanted: F,
    stack: Vec<Step<'a>>,
    next: Option<(&'a Leaf, Range<usize>)>,
}

impl KeyIndex {
    /// The leaves of `range`, in subtrees that are `wanted`.
    pub(super) fn leaves<F: Fn(&Summary) -> bool>(
        &self,
        range: &KeyRange,
        wanted: F,
    ) -> Leaves<'_, F> {
        let mut leaves = Leaves {
            range: range.clone(),
            wanted,
            stack: Vec::new(),
            next: None,
        };
        if let Some(root) = self.root.as_ref().filter(|_| !range.is_empty()) {
            leaves.descend(root, true, true);
        }
        leaves
    }
}

impl<'a, F: Fn(&Summary) -> bool> Leaves<'a, F> {
    /// Goes down the first children to a leaf, if `child` is wanted. `first`: keys before the range
    /// can be below it; `last`: keys behind the range can be.
    fn descend(&mut self, mut child: &'a Child, first: bool, mut last: bool) {
        while (self.wanted)(&child.summary) {
            match &*child.node {
                Node::Inner(inner) => {
                    let start = if first {
                        inner.child_of(self.range.start())
                    } else {
                        0
                    };
                    let end = if last {
                        inner.last_child(|separator| self.range.is_past(separator))
                    } else {
                        inner.children.len() - 1
                    };
                    self.stack.push(Step {
                        inner,
                        rest: start + 1..end + 1,
                        bounded: last,
                    });
                    child = &inner.children[start];
                    last = last && start == end;
                }
                Node::Leaf(leaf) => {
                    let start = if first {
                        leaf.lower_bound(self.range.start())
                    } else {
                        0
                    };
                    let end = if last {
                        leaf.partition_point(|key| self.range.is_past(key))
                    } else {
                        leaf.len()
                    };
                    if start < end {
                        self.next = Some((leaf, start..end));
                    }
                    return;
                }
            }
        }
    }
}

impl<'a, F: Fn(&Summary) -> bool> Iterator for Leaves<'a, F> {
    type Item = (&'a Leaf, Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(found) = self.next.take() {
                return Some(found);
            }
            let step = self.stack.last_mut()?;
            match step.rest.next() {
                None => {
                    self.stack.pop();
                }
                Some(at) => {
                    let last = step.bounded && step.rest.is_empty();
                    let child = &step.inner.children[at];
                    self.descend(child, false, last);
                }
            }
        }
    }
}

/// Changes of the slots in `leaves`. `collect` gets a slot and adds its changes, newest first, to an
/// empty list, which is used again for every slot; they come out oldest first.
pub(super) fn per_slot<'a>(
    leaves: impl Iterator<Item = (&'a Leaf, Range<usize>)>,
    collect: impl Fn(&'a Leaf, usize, &mut Vec<Change>),
) -> impl Iterator<Item = (&'a [u8], Change)> {
    let mut slots = leaves.flat_map(|(leaf, slots)| slots.map(move |slot| (leaf, slot)));
    let mut found: Vec<Change> = Vec::new();
    let mut key: &'a [u8] = &[];
    std::iter::from_fn(move || {
        while found.is_empty() {
            let (leaf, slot) = slots.next()?;
            collect(leaf, slot, &mut found);
            key = leaf.key(slot);
        }
        found.pop().map(|change| (key, change))
    })
}
