//! The rows of many runs in one order.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use super::super::leaf;
use super::Change;
use super::run::{self, Run};

/// A row in a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowRef<'r> {
    pub(super) key: &'r [u8],
    /// Key and change as the slot of a leaf.
    pub(super) slot: &'r [u8],
    pub(super) change: Change,
}

/// At most `parts - 1` keys that divide the rows of `runs` into parts of about one size; strictly
/// ascending. A single run is not worth dividing.
pub(super) fn bounds(runs: &[Run], parts: usize) -> Vec<&[u8]> {
    if runs.len() < 2 {
        return Vec::new();
    }
    let mut samples: Vec<&[u8]> = runs.iter().flat_map(Run::samples).collect();
    samples.sort_unstable();
    let mut bounds: Vec<&[u8]> = (1..parts)
        .map(|part| samples[samples.len() * part / parts])
        .collect();
    bounds.dedup();
    bounds
}

/// The rows of some runs by (key, run, position in the run).
pub(super) struct Merge<'r> {
    runs: &'r [Run],
    /// The runs that have a row left.
    heads: BinaryHeap<Head<'r>>,
    /// How far each run has been read.
    cursors: Vec<Cursor>,
    /// What all keys begin with is this long.
    prefix: usize,
}

/// How far a run has been read.
struct Cursor {
    /// Where its next row starts.
    at: usize,
    /// Where its rows end.
    end: usize,
}

/// The key of the next row of a run. The greatest one, for the heap, is the one that comes first.
#[derive(PartialEq, Eq)]
struct Head<'r> {
    /// The first bytes of the key behind the common prefix; mostly they decide.
    word: u64,
    key: &'r [u8],
    run: usize,
}

impl<'r> Merge<'r> {
    /// Of the keys from `from` on and below `until`.
    pub(super) fn new(runs: &'r [Run], from: Option<&[u8]>, until: Option<&[u8]>) -> Self {
        let mut keys = runs.iter().flat_map(Run::samples);
        // All keys lie between two that are compared here, so they have this much in common too.
        let prefix = keys.next().map_or(0, |first| {
            keys.fold(first.len(), |common, key| {
                common.min(leaf::common_prefix(first, key))
            })
        });
        let cursors = runs.iter().map(|run| Cursor {
            at: from.map_or(0, |from| run.lower_bound(from)),
            end: until.map_or(run.len(), |until| run.lower_bound(until)),
        });
        let mut merge = Self {
            runs,
            heads: BinaryHeap::with_capacity(runs.len()),
            cursors: cursors.collect(),
            prefix,
        };
        for run in 0..runs.len() {
            merge.heads.extend(merge.head(run));
        }
        merge
    }

    /// The next row of a run, unless it has none left.
    fn head(&self, run: usize) -> Option<Head<'r>> {
        let Cursor { at, end } = self.cursors[run];
        (at < end).then(|| {
            let key = self.runs[run].key(at);
            let word = run::word(&key[self.prefix..]);
            Head { word, key, run }
        })
    }
}

impl<'r> Iterator for Merge<'r> {
    type Item = RowRef<'r>;

    fn next(&mut self) -> Option<RowRef<'r>> {
        let run = self.heads.peek()?.run;
        let cursor = &mut self.cursors[run];
        let (row, next) = self.runs[run].row(cursor.at);
        cursor.at = next;
        let after = self.head(run);
        let first = self.heads.peek_mut()?;
        match after {
            // Goes down to its place when the guard is dropped.
            Some(head) => *{ first } = head,
            None => drop(PeekMut::pop(first)),
        }
        Some(row)
    }
}

impl Ord for Head<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = self.word.cmp(&other.word);
        order
            .then_with(|| self.key.cmp(other.key))
            .then_with(|| self.run.cmp(&other.run))
            .reverse()
    }
}

impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
