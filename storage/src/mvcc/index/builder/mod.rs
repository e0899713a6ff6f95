//! [`Builder`]: the index of a whole store at start-up, from its rows in revision order.
//!
//! ```text
//! push ──▶ block, in any order of keys ──sorted when full──▶ run ┐
//!                                                            run ├─ merge ──▶ leaves ──▶ tree
//!                                                            run ┘
//! ```
//!
//! A block fits the processor's cache, so that sorting it and writing its rows down in order costs
//! little; the merge then reads every run from front to back. Memory is touched once for the runs
//! and once for the leaves: at start-up all of it is new to the process, and the system has to
//! clear every page.

mod merge;
mod run;

use std::cmp::Reverse;

use ferrite_api::types::Revision;

use self::merge::{Merge, RowRef};
use self::run::{Block, Run};
use super::archive::Archive;
use super::leaf::Leaf;
use super::node::{Child, Inner, separator};
use super::{Change, KeyIndex, Limits};

/// What a row did to its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Row {
    /// Set it.
    Put {
        /// `create_revision` of the record.
        created: i64,
        /// `version` of the record.
        version: i64,
        /// Length of the record (bytes).
        record_len: u32,
    },
    /// Deleted it.
    Tombstone,
}

impl Row {
    fn at(self, revision: Revision) -> Change {
        match self {
            Row::Tombstone => Change::tombstone(revision),
            Row::Put {
                created,
                version,
                record_len,
            } => Change {
                revision,
                tombstone: false,
                created,
                version,
                record_len,
            },
        }
    }
}

/// A subtree and the least key that belongs to it.
type Bounded = (Vec<u8>, Child);

/// Collects rows, sorts them by key and builds full leaves: much cheaper than inserting them.
///
/// The first row of a key may be a tombstone or have any version: older ones were compacted. Rows
/// come from a disk, so nothing is taken for granted: if those of a key are not in revision order
/// they are sorted, and of two with one revision the later counts.
#[derive(Debug, Default)]
pub struct Builder {
    /// Sorted rows; those of an earlier run were pushed earlier.
    runs: Vec<Run>,
    /// The newest rows.
    block: Block,
    limits: Limits,
}

impl Builder {
    /// A builder without rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// A builder of an index whose nodes have other sizes than usual.
    pub fn with_limits(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Adds a row. Rows should come in revision order, as a page file has them.
    pub fn push(&mut self, key: &[u8], revision: Revision, row: Row) {
        self.block.push(key, &row.at(revision));
        if self.block.len() >= self.limits.build_block {
            self.seal();
        }
    }

    /// Sorts the rows pushed last. [`Builder::append`] and [`Builder::finish`] do it too; a thread
    /// that has pushed its part of the rows does it before it hands the builder over.
    pub fn seal(&mut self) {
        self.runs.extend(self.block.sort());
    }

    /// Adds the rows of another builder, which has seen a later part of the file.
    pub fn append(&mut self, mut other: Self) {
        self.seal();
        other.seal();
        self.runs.append(&mut other.runs);
    }

    /// The index of all rows, built by up to so many threads, this one included.
    pub fn finish(mut self, threads: usize) -> KeyIndex {
        self.seal();
        let Self { runs, limits, .. } = self;
        let bounds = merge::bounds(&runs, threads);
        let ranges = (0..=bounds.len()).map(|n| {
            let from = n.checked_sub(1).map(|before| bounds[before]);
            (from, bounds.get(n).copied())
        });
        let leaves = std::thread::scope(|scope| {
            let (runs, limits) = (&runs, &limits);
            let mut ranges = ranges;
            let first = ranges.next();
            let others: Vec<_> = ranges
                .map(|(from, until)| scope.spawn(move || leaves(runs, from, until, limits)))
                .collect();
            let mut leaves = first.map_or_else(Vec::new, |(from, until)| {
                self::leaves(runs, from, until, limits)
            });
            for other in others {
                match other.join() {
                    Ok(more) => leaves.extend(more),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            leaves
        });
        KeyIndex {
            root: tree(leaves, &limits),
            limits,
        }
    }
}

/// Full leaves of the keys from `from` on and below `until`, with the least key that belongs to each.
fn leaves(
    runs: &[Run],
    from: Option<&[u8]>,
    until: Option<&[u8]>,
    limits: &Limits,
) -> Vec<Bounded> {
    let mut leaves: Vec<Bounded> = Vec::new();
    let mut leaf = Leaf::default();
    let mut bound = from.unwrap_or_default().to_vec();
    let mut changes: Vec<Change> = Vec::new();
    let mut rows = Merge::new(runs, from, until).peekable();
    while let Some(RowRef { key, slot, change }) = rows.next() {
        let full = leaf.len() == limits.leaf_slots || leaf.bytes() + key.len() > limits.leaf_bytes;
        if full && leaf.len() > 0 {
            let next = separator(leaf.key(leaf.len() - 1), key);
            let bound = std::mem::replace(&mut bound, next);
            leaves.push((bound, Child::leaf(leaf.take())));
        }
        let mut more = rows.next_if(|next| next.key == key);
        if more.is_none() {
            leaf.push_encoded(slot);
            continue;
        }
        changes.clear();
        changes.push(change);
        while let Some(row) = more {
            changes.push(row.change);
            more = rows.next_if(|next| next.key == key);
        }
        changes.reverse();
        if !changes.is_sorted_by(|newer, older| newer.revision > older.revision) {
            changes.sort_by_key(|change| Reverse(change.revision));
            changes.dedup_by_key(|change| change.revision);
        }
        leaf.push(key, &changes, Archive::default(), limits);
    }
    if leaf.len() > 0 {
        leaves.push((bound, Child::leaf(leaf.take())));
    }
    leaves
}

/// The root over subtrees, each with its separator.
fn tree(mut level: Vec<Bounded>, limits: &Limits) -> Option<Child> {
    while level.len() > 1 {
        let mut above: Vec<Bounded> = Vec::new();
        let mut rest = level.into_iter().peekable();
        while let Some((bound, first)) = rest.next() {
            let mut inner = Inner::default();
            inner.push(b"", first);
            for (separator, child) in rest.by_ref().take(limits.children - 1) {
                inner.push(&separator, child);
            }
            above.push((bound, Child::inner(inner)));
        }
        level = above;
    }
    level.pop().map(|(_, root)| root)
}
