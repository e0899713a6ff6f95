//! The tree above the leaves: inner nodes, and applying a change from the root down.
//!
//! Nodes are shared between roots through `Arc`; a writer copies a node only if somebody else holds
//! it (`Arc::make_mut`). What is known of a subtree stands beside the pointer to it, so that a
//! subtree can be counted or skipped without touching its memory.

use std::sync::Arc;

use super::leaf::{Leaf, common_prefix};
use super::{Change, Limits, framed_len, heap};

/// What a parent knows of a subtree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    /// Keys whose newest change is a put.
    pub(super) live: u64,
    /// Sum of the framed record lengths of those puts (bytes).
    pub(super) bytes: u64,
    /// Greatest main revision of all changes; exact.
    pub(super) newest: i64,
    /// A lower bound of the compactions that drop something; `i64::MAX` if none does.
    pub(super) garbage: i64,
}

impl Summary {
    pub(super) const EMPTY: Self = Self {
        live: 0,
        bytes: 0,
        newest: i64::MIN,
        garbage: i64::MAX,
    };

    /// The summary of one key.
    pub(super) fn of_head(head: &Change, garbage: i64) -> Self {
        let (live, bytes) = if head.tombstone {
            (0, 0)
        } else {
            (1, framed_len(head.record_len))
        };
        Self {
            live,
            bytes,
            newest: head.revision.main,
            garbage,
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.live += other.live;
        self.bytes += other.bytes;
        self.newest = self.newest.max(other.newest);
        self.garbage = self.garbage.min(other.garbage);
    }

    /// Accounts for `change` of a key whose newest change was `before`.
    fn apply(&mut self, before: Option<&Change>, change: &Change) {
        let main = change.revision.main;
        if let Some(before) = before {
            let before = Self::of_head(before, i64::MAX);
            self.live -= before.live;
            self.bytes -= before.bytes;
        }
        // A put goes when it is superseded. A tombstone would go right after its own revision, but
        // it always supersedes a put, which goes before that.
        let superseded = before.is_some_and(|before| !before.tombstone);
        let garbage = if superseded { main } else { i64::MAX };
        self.add(&Self::of_head(change, garbage));
    }
}

/// A subtree.
#[derive(Clone, Debug)]
pub(super) struct Child {
    pub(super) node: Arc<Node>,
    pub(super) summary: Summary,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    Leaf(Leaf),
    Inner(Inner),
}

/// A node above the leaves.
///
/// Invariants: as many separators as children; the first separator is empty and means nothing, the
/// others strictly ascend; every key below child `i` is at least separator `i` and less than
/// separator `i + 1`; all leaves are equally deep; summaries are those of the subtrees.
#[derive(Clone, Debug, Default)]
pub(super) struct Inner {
    separators: Separators,
    pub(super) children: Vec<Child>,
}

/// A subtree that was split off to the right, and the least key that belongs to it.
pub(super) struct Split {
    pub(super) separator: Vec<u8>,
    pub(super) right: Child,
}

impl Child {
    pub(super) fn leaf(leaf: Leaf) -> Self {
        Self {
            summary: leaf.summary(),
            node: Arc::new(Node::Leaf(leaf)),
        }
    }

    pub(super) fn inner(inner: Inner) -> Self {
        Self {
            summary: inner.summary(),
            node: Arc::new(Node::Inner(inner)),
        }
    }

    /// Adds a change, newer than all of its key, and returns the newest one before it. If the
    /// subtree becomes too large its right part comes back in `split`.
    ///
    /// # Panics
    /// If the key has a change that is not older.
    pub(super) fn apply(
        &mut self,
        key: &[u8],
        change: &Change,
        limits: &Limits,
        split: &mut Option<Split>,
    ) -> Option<Change> {
        match Arc::make_mut(&mut self.node) {
            Node::Leaf(leaf) => {
                let applied = leaf.apply(key, change, limits);
                match leaf.overflow(applied.slot, limits) {
                    None => self.summary.apply(applied.before.as_ref(), change),
                    Some(at) => {
                        let right = leaf.split_off(at);
                        let separator = separator(leaf.key(at - 1), right.key(0));
                        self.summary = leaf.summary();
                        *split = Some(Split {
                            separator,
                            right: Self::leaf(right),
                        });
                    }
                }
                applied.before
            }
            Node::Inner(inner) => {
                let at = inner.child_of(key);
                let mut below = None;
                let before = inner.children[at].apply(key, change, limits, &mut below);
                self.summary.apply(before.as_ref(), change);
                if let Some(below) = below {
                    inner.insert(at + 1, &below.separator, below.right);
                    if inner.children.len() > limits.children {
                        *split = Some(inner.split(at + 1));
                        self.summary = inner.summary();
                    }
                }
                before
            }
        }
    }

    /// Whether no key is left.
    pub(super) fn is_empty(&self) -> bool {
        match &*self.node {
            Node::Leaf(leaf) => leaf.len() == 0,
            Node::Inner(inner) => inner.children.is_empty(),
        }
    }

    /// Whether this and its right neighbour should be one node, after keys have gone.
    fn should_join(&self, right: &Self, limits: &Limits) -> bool {
        let roomy = |a: usize, b: usize, max: usize| a + b <= max * 3 / 4 && a.min(b) < max / 4;
        match (&*self.node, &*right.node) {
            (Node::Leaf(a), Node::Leaf(b)) => {
                roomy(a.len(), b.len(), limits.leaf_slots)
                    && a.bytes() + b.bytes() <= limits.leaf_bytes * 3 / 4
            }
            (Node::Inner(a), Node::Inner(b)) => {
                roomy(a.children.len(), b.children.len(), limits.children)
            }
            _ => false,
        }
    }

    /// Takes over the right neighbour, whose separator is `separator`.
    fn join(&mut self, separator: &[u8], right: &Self) {
        match (Arc::make_mut(&mut self.node), &*right.node) {
            (Node::Leaf(leaf), Node::Leaf(right)) => leaf.append(right),
            (Node::Inner(inner), Node::Inner(right)) => inner.append(separator, right),
            _ => unreachable!("siblings are of one kind: all leaves are equally deep"),
        }
        self.summary.add(&right.summary);
    }
}

impl Inner {
    /// A node over two subtrees, the second of which begins at `separator`.
    pub(super) fn over(left: Child, separator: &[u8], right: Child) -> Self {
        let mut inner = Self::default();
        inner.push(b"", left);
        inner.push(separator, right);
        inner
    }

    /// Appends a subtree. The separator of the first one is not kept.
    pub(super) fn push(&mut self, separator: &[u8], child: Child) {
        let separator = if self.children.is_empty() {
            b""
        } else {
            separator
        };
        self.separators.insert(self.children.len(), separator);
        self.children.push(child);
    }

    /// The child that `key` belongs to.
    pub(super) fn child_of(&self, key: &[u8]) -> usize {
        self.last_child(|separator| separator > key)
    }

    /// The last child whose separator is not `past`; the first child if all are.
    pub(super) fn last_child(&self, past: impl Fn(&[u8]) -> bool) -> usize {
        let (mut low, mut high) = (1, self.children.len());
        while low < high {
            let middle = low.midpoint(high);
            if past(self.separators.get(middle)) {
                high = middle
            } else {
                low = middle + 1
            }
        }
        low - 1
    }

    pub(super) fn summary(&self) -> Summary {
        let mut summary = Summary::EMPTY;
        self.children
            .iter()
            .for_each(|child| summary.add(&child.summary));
        summary
    }

    fn insert(&mut self, at: usize, separator: &[u8], child: Child) {
        self.separators.insert(at, separator);
        self.children.insert(at, child);
    }

    /// Splits the right part off, when a child was just added at `added`. A child added at the end
    /// goes alone: keys that come in order leave full nodes behind.
    fn split(&mut self, added: usize) -> Split {
        let len = self.children.len();
        let at = if added == len - 1 { added } else { len / 2 };
        let mut right = Self {
            separators: self.separators.split_off(at),
            children: self.children.split_off(at),
        };
        self.children.shrink_to_fit();
        let separator = right.separators.replace_first();
        Split {
            separator,
            right: Child::inner(right),
        }
    }

    fn append(&mut self, separator: &[u8], right: &Self) {
        for (at, child) in right.children.iter().enumerate() {
            let separator = if at == 0 {
                separator
            } else {
                right.separators.get(at)
            };
            self.separators.insert(self.children.len(), separator);
            self.children.push(child.clone());
        }
    }

    /// Removes empty children and joins small neighbours, where `touched` children have lost keys.
    pub(super) fn tidy(&mut self, touched: std::ops::Range<usize>, limits: &Limits) {
        let before = self.children.len();
        for at in touched.clone().rev() {
            if self.children[at].is_empty() {
                self.remove(at);
            }
        }
        let end = (touched.end - (before - self.children.len()) + 1).min(self.children.len());
        for at in (touched.start.max(1)..end).rev() {
            let (left, right) = self.children.split_at_mut(at);
            let (left, right) = (&mut left[at - 1], &right[0]);
            if left.should_join(right, limits) {
                left.join(self.separators.get(at), right);
                self.remove(at);
            }
        }
    }

    fn remove(&mut self, at: usize) {
        self.children.remove(at);
        self.separators.remove(at);
        if at == 0 && !self.children.is_empty() {
            self.separators.replace_first();
        }
    }

    /// The bounds of the keys below child `at`: at least the first, less than the second.
    pub(super) fn bounds(&self, at: usize) -> (&[u8], Option<&[u8]>) {
        let next = at + 1;
        (
            self.separators.get(at),
            (next < self.children.len()).then(|| self.separators.get(next)),
        )
    }

    /// An estimate of the memory held, without the children's (bytes).
    pub(super) fn heap_bytes(&self) -> usize {
        heap::vec(&self.children)
            + heap::vec(&self.separators.bytes)
            + heap::vec(&self.separators.ends)
    }

    /// Panics if an invariant of this node alone does not hold.
    pub(super) fn check_invariants(&self, limits: &Limits) {
        let len = self.children.len();
        assert!(
            0 < len && len <= limits.children,
            "{len} children, at most {}",
            limits.children
        );
        assert_eq!(
            self.separators.ends.len(),
            len,
            "separators of {len} children"
        );
        assert_eq!(self.separators.get(0), b"", "first separator");
        for at in 2..len {
            let (separator, next) = (self.separators.get(at - 1), self.separators.get(at));
            assert!(
                separator < next,
                "separators {separator:?} and {next:?} at {at}"
            );
        }
        let ends = self.separators.ends.last().map(|end| *end as usize);
        assert_eq!(
            ends,
            Some(self.separators.bytes.len()),
            "bytes of the separators"
        );
    }
}

/// The shortest key that is greater than `left` and not greater than `right`.
pub(super) fn separator(left: &[u8], right: &[u8]) -> Vec<u8> {
    right[..common_prefix(left, right) + 1].to_vec()
}

/// A packed list of byte strings.
#[derive(Clone, Debug, Default)]
struct Separators {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Separators {
    fn start(&self, at: usize) -> usize {
        at.checked_sub(1)
            .map_or(0, |before| self.ends[before] as usize)
    }

    fn get(&self, at: usize) -> &[u8] {
        &self.bytes[self.start(at)..self.ends[at] as usize]
    }

    fn insert(&mut self, at: usize, separator: &[u8]) {
        let start = self.start(at);
        self.bytes.splice(start..start, separator.iter().copied());
        self.ends.insert(at, end(start));
        self.ends[at..]
            .iter_mut()
            .for_each(|end| *end += separator.len() as u32);
        end(self.bytes.len());
    }

    fn remove(&mut self, at: usize) {
        let (start, len) = (self.start(at), self.get(at).len());
        self.bytes.drain(start..start + len);
        self.ends.remove(at);
        self.ends[at..]
            .iter_mut()
            .for_each(|end| *end -= len as u32);
    }

    /// Makes the first one empty and returns what it was.
    fn replace_first(&mut self) -> Vec<u8> {
        let first = self.get(0).to_vec();
        self.remove(0);
        self.insert(0, b"");
        first
    }

    fn split_off(&mut self, at: usize) -> Self {
        let start = self.start(at);
        let bytes = self.bytes.split_off(start);
        let ends = self
            .ends
            .split_off(at)
            .into_iter()
            .map(|end| end - start as u32)
            .collect();
        self.bytes.shrink_to_fit();
        self.ends.shrink_to_fit();
        Self { bytes, ends }
    }
}

fn end(at: usize) -> u32 {
    u32::try_from(at).expect("separators of a node are far smaller than 4 GiB")
}
