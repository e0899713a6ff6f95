//! [`Builder`]: the index of a whole store at start-up, from its rows in revision order.

use std::cmp::Reverse;

use ferrite_api::types::Revision;

use super::archive::Archive;
use super::history::{self, Chain};
use super::leaf::{self, Leaf};
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

/// Collects rows, then sorts them by key and builds full leaves: much cheaper than inserting them.
///
/// The first row of a key may be a tombstone or have any version: older ones were compacted. Rows
/// come from a disk, so nothing is taken for granted: if those of a key are not in revision order
/// they are sorted, and of two with one revision the later counts.
#[derive(Debug, Default)]
pub struct Builder {
    /// The rows one after the other, each as the slot of a leaf that has one change.
    arena: Vec<u8>,
    /// Where each row starts in the arena.
    starts: Vec<u64>,
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
        self.starts.push(self.arena.len() as u64);
        history::write_varint(key.len() as u64, &mut self.arena);
        self.arena.extend_from_slice(key);
        history::encode([&row.at(revision)], &mut self.arena);
    }

    /// Adds the rows of another builder, which has seen another part of the file.
    pub fn append(&mut self, other: Self) {
        let offset = self.arena.len() as u64;
        self.arena.extend_from_slice(&other.arena);
        self.starts
            .extend(other.starts.into_iter().map(|start| start + offset));
    }

    /// The index of all rows.
    pub fn finish(self) -> KeyIndex {
        let Self {
            arena,
            starts,
            limits,
            ..
        } = self;
        let root = tree(leaves(&arena, &sorted(&arena, starts), &limits), &limits);
        KeyIndex { root, limits }
    }
}

/// The key of the row at `start` and where its change begins.
fn key_of(arena: &[u8], start: u64) -> (&[u8], usize) {
    let mut at = start as usize;
    let len = history::read_varint(arena, &mut at) as usize;
    (&arena[at..at + len], at + len)
}

/// Row starts by (key, revision). Keys are compared eight bytes at a time, which are taken out of
/// the arena before each round: comparing keys in place would miss the cache on every comparison.
fn sorted(arena: &[u8], starts: Vec<u64>) -> Vec<u64> {
    let mut rows: Vec<SortRow> = starts.into_iter().map(SortRow::unread).collect();
    // Groups of rows whose keys agree in the first `depth` bytes.
    let mut groups = vec![(0..rows.len(), 0)];
    while let Some((group, depth)) = groups.pop() {
        let rows = &mut rows[group.clone()];
        let depth = common_prefix(arena, rows, depth);
        rows.iter_mut()
            .for_each(|row| *row = SortRow::read(arena, row.start(), depth));
        rows.sort_unstable();
        let mut first = group.start;
        for same in rows.chunk_by(SortRow::same_word) {
            if same.len() > 1 && same[0].goes_on() {
                groups.push((first..first + same.len(), depth + SortRow::WORD));
            }
            first += same.len();
        }
    }
    rows.into_iter().map(|row| row.start()).collect()
}

/// How many bytes all keys of `rows` have in common, given that it is at least `depth`.
fn common_prefix(arena: &[u8], rows: &[SortRow], depth: usize) -> usize {
    let mut keys = rows
        .iter()
        .map(|row| &key_of(arena, row.start()).0[depth..]);
    let Some(mut common) = keys.next() else {
        return depth;
    };
    for key in keys {
        if !key.starts_with(common) {
            common = &common[..leaf::common_prefix(common, key)];
        }
    }
    depth + common.len()
}

/// A row and up to eight bytes of its key, ordered by those bytes, then by revision.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct SortRow {
    /// The bytes, the first one on top, filled up with zeros.
    word: u64,
    /// How many bytes there are (in the top byte: of keys that agree in `word` the one that ends
    /// first comes first), and where the row starts in the arena, which ascends by revision.
    len_and_start: u64,
}

impl SortRow {
    const WORD: usize = 8;
    const START_BITS: u32 = 56;

    /// A row of which no byte is read yet.
    fn unread(start: u64) -> Self {
        Self {
            word: 0,
            len_and_start: start,
        }
    }

    /// The row at `start` with the bytes of its key from `depth` on.
    fn read(arena: &[u8], start: u64, depth: usize) -> Self {
        let rest = &key_of(arena, start).0[depth..];
        let len = rest.len().min(Self::WORD);
        let mut bytes = [0; Self::WORD];
        bytes[..len].copy_from_slice(&rest[..len]);
        let len_and_start = (len as u64) << Self::START_BITS | start;
        Self {
            word: u64::from_be_bytes(bytes),
            len_and_start,
        }
    }

    fn start(&self) -> u64 {
        self.len_and_start & ((1 << Self::START_BITS) - 1)
    }

    fn len(&self) -> u64 {
        self.len_and_start >> Self::START_BITS
    }

    fn same_word(&self, other: &Self) -> bool {
        self.word == other.word && self.len() == other.len()
    }

    /// Whether the key may go on after these bytes.
    fn goes_on(&self) -> bool {
        self.len() == Self::WORD as u64
    }
}

/// Full leaves, with the least key that belongs to each.
fn leaves(arena: &[u8], starts: &[u64], limits: &Limits) -> Vec<(Vec<u8>, Child)> {
    let mut leaves: Vec<(Vec<u8>, Child)> = Vec::new();
    let mut leaf = Leaf::default();
    let mut bound = Vec::new();
    let mut changes: Vec<Change> = Vec::new();
    for rows in starts.chunk_by(|a, b| key_of(arena, *a).0 == key_of(arena, *b).0) {
        let (key, mut at) = key_of(arena, rows[0]);
        let full = leaf.len() == limits.leaf_slots || leaf.bytes() + key.len() > limits.leaf_bytes;
        if full && leaf.len() > 0 {
            let next = separator(leaf.key(leaf.len() - 1), key);
            leaves.push((
                std::mem::replace(&mut bound, next),
                Child::leaf(leaf.take()),
            ));
        }
        if let [row] = rows {
            let mut chain = Chain::new(&arena[at..], arena.len() - at);
            chain.next();
            at += chain.position();
            leaf.push_encoded(&arena[*row as usize..at]);
            continue;
        }
        changes.clear();
        for row in rows.iter().rev() {
            let at = key_of(arena, *row).1;
            changes.extend(Chain::new(&arena[at..], arena.len() - at).next());
        }
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
fn tree(mut level: Vec<(Vec<u8>, Child)>, limits: &Limits) -> Option<Child> {
    while level.len() > 1 {
        let mut above: Vec<(Vec<u8>, Child)> = Vec::new();
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
