//! Looking at the whole index: invariants and memory.

use super::node::{Child, Node, Summary};
use super::{KeyIndex, Limits, heap};

impl KeyIndex {
    /// Walks the whole index and panics if an invariant does not hold. For tests.
    pub fn check_invariants(&self) {
        if let Some(root) = &self.root {
            assert!(!root.is_empty(), "an empty root");
            check(root, b"", None, &self.limits);
        }
    }

    /// An estimate of the memory that this root holds, alone or together with others (bytes).
    /// Walks the whole index.
    pub fn heap_bytes(&self) -> usize {
        self.root.as_ref().map_or(0, |root| heap_bytes(&root.node))
    }
}

/// Checks a subtree with keys in `[low, high)` and returns its depth.
fn check(child: &Child, low: &[u8], high: Option<&[u8]>, limits: &Limits) -> usize {
    let (depth, summary) = match &*child.node {
        Node::Leaf(leaf) => {
            assert!(leaf.len() > 0, "a leaf without keys in [{low:?}, {high:?})");
            leaf.check_invariants(limits);
            let (first, last) = (leaf.key(0), leaf.key(leaf.len() - 1));
            assert!(
                low <= first,
                "key {first:?} before its leaf's bound {low:?}"
            );
            assert!(
                high.is_none_or(|high| last < high),
                "key {last:?} past the bound {high:?}"
            );
            (0, leaf.summary())
        }
        Node::Inner(inner) => {
            inner.check_invariants(limits);
            let mut depths = (0..inner.children.len()).map(|at| {
                let (from, to) = inner.bounds(at);
                let from = if at == 0 { low } else { from };
                check(&inner.children[at], from, to.or(high), limits)
            });
            let depth = depths.next().expect("an inner node has children");
            assert!(
                depths.all(|other| other == depth),
                "leaves are not equally deep"
            );
            (depth + 1, inner.summary())
        }
    };
    let known = child.summary;
    // `garbage` may be too low: what would raise it is not looked for on every change.
    let bounded = Summary {
        garbage: known.garbage.min(summary.garbage),
        ..summary
    };
    assert_eq!(known, bounded, "summary of [{low:?}, {high:?})");
    depth
}

fn heap_bytes(node: &Node) -> usize {
    let below = match node {
        Node::Leaf(leaf) => leaf.heap_bytes(),
        Node::Inner(inner) => {
            let children = inner.children.iter().map(|child| heap_bytes(&child.node));
            inner.heap_bytes() + children.sum::<usize>()
        }
    };
    heap::shared::<Node>() + below
}
