//! Looking at the whole index: invariants and memory.

use super::node::{Child, Node, Summary};
use super::{KeyIndex, Limits, heap, history};

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

/// What a check finds out about a subtree.
struct Found {
    depth: usize,
    /// The lowest compaction that drops something; exact.
    garbage: i64,
}

/// Checks a subtree with keys in `[low, high)`.
fn check(child: &Child, low: &[u8], high: Option<&[u8]>, limits: &Limits) -> Found {
    let (found, summary) = match &*child.node {
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
            let garbage = (0..leaf.len())
                .map(|slot| history::first_garbage(leaf.history(slot), None))
                .min();
            (
                Found {
                    depth: 0,
                    garbage: garbage.unwrap_or(i64::MAX),
                },
                leaf.summary(),
            )
        }
        Node::Inner(inner) => {
            inner.check_invariants(limits);
            let mut found = Found {
                depth: 0,
                garbage: i64::MAX,
            };
            for (at, child) in inner.children.iter().enumerate() {
                let (from, to) = inner.bounds(at);
                let below = check(child, if at == 0 { low } else { from }, to.or(high), limits);
                assert!(
                    at == 0 || below.depth + 1 == found.depth,
                    "child {at} is {} deep, its left neighbour {}",
                    below.depth,
                    found.depth - 1
                );
                found.depth = below.depth + 1;
                found.garbage = found.garbage.min(below.garbage);
            }
            (found, inner.summary())
        }
    };
    // The garbage is a lower bound: what would raise it is not looked for on every change.
    let Summary { garbage, .. } = child.summary;
    assert!(
        garbage <= found.garbage,
        "garbage from {garbage} on, found from {}",
        found.garbage
    );
    assert_eq!(
        child.summary,
        Summary { garbage, ..summary },
        "summary of [{low:?}, {high:?})"
    );
    found
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
