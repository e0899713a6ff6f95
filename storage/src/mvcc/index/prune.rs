//! Dropping what a compaction has made unreachable, key by key or in steps over the whole index.

use std::sync::Arc;

use super::KeyIndex;
use super::node::{Child, Node};

impl KeyIndex {
    /// Drops the revisions of `key` that a compaction at `compact` drops, and the key if none is
    /// left. Returns how many.
    pub fn prune(&mut self, key: &[u8], compact: i64) -> usize {
        let found = self.find(key);
        if !found.is_some_and(|(leaf, slot)| leaf.has_garbage(slot, compact)) {
            return 0;
        }
        self.sweep(compact, key, 1).dropped
    }

    /// Drops what a compaction at `compact` drops, of at most `max_keys` keys from `from` on;
    /// subtrees without anything to drop cost nothing. Returns the key to continue at (it need not
    /// exist), `None` when done.
    pub fn prune_step(&mut self, compact: i64, from: &[u8], max_keys: usize) -> Option<Vec<u8>> {
        self.sweep(compact, from, max_keys.max(1)).stopped_before
    }

    fn sweep<'k>(&mut self, compact: i64, from: &'k [u8], max_keys: usize) -> Sweep<'k> {
        let mut sweep = Sweep {
            compact,
            from,
            budget: max_keys,
            dropped: 0,
            stopped_before: None,
        };
        if let Some(mut root) = self.root.take() {
            sweep.child(&mut root, true, &self.limits);
            self.root = shrunk(root);
        }
        sweep
    }
}

/// A root without levels that have become needless; `None` if no key is left.
fn shrunk(mut root: Child) -> Option<Child> {
    while let Node::Inner(inner) = &*root.node {
        match inner.children.as_slice() {
            [only] => root = only.clone(),
            _ => break,
        }
    }
    (!root.is_empty()).then_some(root)
}

struct Sweep<'k> {
    compact: i64,
    from: &'k [u8],
    /// Keys that may still be visited.
    budget: usize,
    /// Revisions dropped.
    dropped: usize,
    /// Where to continue, once the budget is used up.
    stopped_before: Option<Vec<u8>>,
}

impl Sweep<'_> {
    /// Sweeps a subtree; `first`: keys before `from` can be below it.
    fn child(&mut self, child: &mut Child, first: bool, limits: &super::Limits) {
        if child.summary.garbage > self.compact {
            return;
        }
        if let Node::Leaf(leaf) = &*child.node {
            let start = if first {
                leaf.lower_bound(self.from)
            } else {
                0
            };
            let end = leaf.len().min(start.saturating_add(self.budget));
            self.budget -= end - start;
            if self.budget == 0 && end > start {
                // The least key after the last one visited.
                self.stopped_before = Some([leaf.key(end - 1), &[0]].concat());
            }
            if let Some((compacted, dropped)) = leaf.compacted(start..end, self.compact, limits) {
                self.dropped += dropped;
                *child = Child::leaf(compacted);
            } else {
                child.summary = leaf.summary();
            }
            return;
        }
        let Node::Inner(inner) = Arc::make_mut(&mut child.node) else {
            unreachable!("leaves were handled above")
        };
        let start = if first { inner.child_of(self.from) } else { 0 };
        let mut at = start;
        while at < inner.children.len() && self.stopped_before.is_none() {
            self.child(&mut inner.children[at], first && at == start, limits);
            at += 1;
        }
        inner.tidy(start..at, limits);
        child.summary = inner.summary();
    }
}
