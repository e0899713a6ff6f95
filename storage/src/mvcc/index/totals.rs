//! Counting: how many keys a range has at a revision, and how many bytes they are in a response.

use super::leaf::Leaf;
use super::node::{Child, Node};
use super::{KeyIndex, framed_len};
use crate::mvcc::range::KeyRange;

/// Keys and the size of their records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// The number of keys.
    pub count: u64,
    /// The bytes that their records take as elements of a repeated field: for each a tag of one
    /// byte, the length as a varint, the record.
    pub framed_bytes: u64,
}

impl KeyIndex {
    /// Counts the keys of `range` that were live at main revision `at`. Exact; O(log n) where
    /// nothing changed after `at`.
    pub fn totals(&self, range: &KeyRange, at: i64) -> Totals {
        self.prefix_totals(range, at, u64::MAX).0
    }

    /// The number of keys of `range` that were live at main revision `at`. Costs what
    /// [`totals`](Self::totals) costs.
    pub fn count(&self, range: &KeyRange, at: i64) -> u64 {
        self.totals(range, at).count
    }

    /// Counts the first `limit` keys of `range` that were live at main revision `at`, and returns
    /// the key after them, if there is one. O(log n) where nothing changed after `at`.
    pub fn prefix_totals(&self, range: &KeyRange, at: i64, limit: u64) -> (Totals, Option<&[u8]>) {
        let mut tally = Tally {
            range,
            at,
            rest: limit,
            totals: Totals::default(),
            next: None,
        };
        if let Some(root) = self.root.as_ref().filter(|_| !range.is_empty()) {
            tally.child(root, true, true);
        }
        (tally.totals, tally.next)
    }
}

struct Tally<'a, 'r> {
    range: &'r KeyRange,
    at: i64,
    /// Keys that may still be counted.
    rest: u64,
    totals: Totals,
    /// The first key that was not counted; set once.
    next: Option<&'a [u8]>,
}

impl<'a> Tally<'a, '_> {
    /// Counts a subtree. `first`: keys before the range can be below it; `last`: keys behind the
    /// range can be.
    fn child(&mut self, child: &'a Child, first: bool, last: bool) {
        let summary = &child.summary;
        let unchanged = summary.newest <= self.at;
        if unchanged && summary.live == 0 {
            return;
        }
        if unchanged && !first && !last && summary.live <= self.rest {
            self.add(summary.live, summary.bytes);
            return;
        }
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
                for at in start..=end {
                    self.child(&inner.children[at], first && at == start, last && at == end);
                    if self.next.is_some() {
                        return;
                    }
                }
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
                if start == 0 && end == leaf.len() {
                    let (live, bytes) = self.whole_leaf(leaf, summary.live, summary.bytes);
                    if live <= self.rest {
                        self.add(live, bytes);
                        return;
                    }
                }
                self.slots(leaf, start..end);
            }
        }
    }

    /// Live keys of a leaf and their bytes at the revision, from those of now: only what changed
    /// since is decoded.
    fn whole_leaf(&self, leaf: &Leaf, mut live: u64, mut bytes: u64) -> (u64, u64) {
        for slot in (0..leaf.len()).filter(|slot| leaf.head_main(*slot) > self.at) {
            if let Some(then) = leaf.live_at(slot, self.at) {
                live += 1;
                bytes += framed_len(then.record_len);
            }
            let now = leaf.head(slot);
            if !now.tombstone {
                live -= 1;
                bytes -= framed_len(now.record_len);
            }
        }
        (live, bytes)
    }

    fn slots(&mut self, leaf: &'a Leaf, slots: std::ops::Range<usize>) {
        for slot in slots {
            let Some(put) = leaf.live_at(slot, self.at) else {
                continue;
            };
            if self.rest == 0 {
                self.next = Some(leaf.key(slot));
                return;
            }
            self.add(1, framed_len(put.record_len));
        }
    }

    fn add(&mut self, live: u64, bytes: u64) {
        self.rest -= live;
        self.totals.count += live;
        self.totals.framed_bytes += bytes;
    }
}
