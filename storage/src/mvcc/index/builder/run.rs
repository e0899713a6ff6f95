//! Rows in the order of their keys: [`Block`] collects and sorts them, [`Run`] holds them.

use super::super::history::{self, Chain};
use super::super::leaf;
use super::{Change, RowRef};

/// Every so many rows of a run it is noted where one starts.
const MARK_ROWS: usize = 256;

/// Rows in the order in which they were pushed.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// The rows one after the other, each as the slot of a leaf that has one change.
    arena: Vec<u8>,
    /// Where each row starts in the arena.
    starts: Vec<u32>,
    /// Scratch space for sorting.
    order: Vec<SortRow>,
}

impl Block {
    pub(super) fn push(&mut self, key: &[u8], change: &Change) {
        self.starts.push(offset(self.arena.len()));
        history::write_varint(key.len() as u64, &mut self.arena);
        self.arena.extend_from_slice(key);
        history::encode([change], &mut self.arena);
    }

    /// The bytes of its rows.
    pub(super) fn len(&self) -> usize {
        self.arena.len()
    }

    /// Moves all rows into a run; `None` if there are none.
    pub(super) fn sort(&mut self) -> Option<Run> {
        if self.starts.is_empty() {
            return None;
        }
        self.sort_rows();
        let mut run = Run {
            arena: Vec::with_capacity(self.arena.len()),
            marks: Vec::with_capacity(self.starts.len().div_ceil(MARK_ROWS)),
            last: 0,
        };
        for (number, row) in self.order.iter().enumerate() {
            run.last = offset(run.arena.len());
            if number.is_multiple_of(MARK_ROWS) {
                run.marks.push(run.last);
            }
            let row = row.row();
            let end = self
                .starts
                .get(row + 1)
                .map_or(self.arena.len(), |next| *next as usize);
            run.arena
                .extend_from_slice(&self.arena[self.starts[row] as usize..end]);
        }
        self.arena.clear();
        self.starts.clear();
        Some(run)
    }

    fn key(&self, row: usize) -> &[u8] {
        key_at(&self.arena, self.starts[row] as usize).0
    }

    /// Makes `order` that of (key, row number). Keys are compared eight bytes at a time, which are
    /// taken out of the arena before each round.
    fn sort_rows(&mut self) {
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        order.extend((0..self.starts.len()).map(SortRow::unread));
        // Groups of rows whose keys agree in the first `depth` bytes.
        let mut groups = vec![(0..order.len(), 0)];
        while let Some((group, depth)) = groups.pop() {
            let rows = &mut order[group.clone()];
            let depth = self.common_prefix(rows, depth);
            for row in &mut *rows {
                *row = SortRow::read(row.row(), &self.key(row.row())[depth..]);
            }
            if !rows.is_sorted() {
                rows.sort_unstable();
            }
            let mut first = group.start;
            for same in rows.chunk_by(SortRow::same_word) {
                if same.len() > 1 && same[0].goes_on() {
                    groups.push((first..first + same.len(), depth + SortRow::WORD));
                }
                first += same.len();
            }
        }
        self.order = order;
    }

    /// How many bytes all keys of `rows` have in common, given that it is at least `depth`.
    fn common_prefix(&self, rows: &[SortRow], depth: usize) -> usize {
        let mut keys = rows.iter().map(|row| &self.key(row.row())[depth..]);
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
}

/// A row and up to eight bytes of its key, ordered by those bytes, then by row number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct SortRow {
    /// The bytes, the first one on top, filled up with zeros.
    word: u64,
    /// How many bytes there are (in the top half: of keys that agree in `word` the one that ends
    /// first comes first), and which row it is.
    len_and_row: u64,
}

impl SortRow {
    const WORD: usize = 8;
    const ROW_BITS: u32 = 32;

    /// A row of which no byte is read yet.
    fn unread(row: usize) -> Self {
        Self {
            word: 0,
            len_and_row: row as u64,
        }
    }

    /// A row whose key goes on with `rest`.
    fn read(row: usize, rest: &[u8]) -> Self {
        let len = rest.len().min(Self::WORD) as u64;
        Self {
            word: word(rest),
            len_and_row: len << Self::ROW_BITS | row as u64,
        }
    }

    fn row(&self) -> usize {
        (self.len_and_row & ((1 << Self::ROW_BITS) - 1)) as usize
    }

    fn len(&self) -> u64 {
        self.len_and_row >> Self::ROW_BITS
    }

    fn same_word(&self, other: &Self) -> bool {
        self.word == other.word && self.len() == other.len()
    }

    /// Whether the key may go on after these bytes.
    fn goes_on(&self) -> bool {
        self.len() == Self::WORD as u64
    }
}

/// Rows in the order of their keys, those of one key in the order in which they were pushed. Never
/// empty.
#[derive(Debug)]
pub(super) struct Run {
    /// The rows one after the other, as in a [`Block`].
    arena: Vec<u8>,
    /// Where every [`MARK_ROWS`]th row starts, the first one included.
    marks: Vec<u32>,
    /// Where the last row starts.
    last: u32,
}

impl Run {
    /// The length of all rows.
    pub(super) fn len(&self) -> usize {
        self.arena.len()
    }

    /// The key of the row that starts at `at`.
    pub(super) fn key(&self, at: usize) -> &[u8] {
        key_at(&self.arena, at).0
    }

    /// The row that starts at `at`, and where the next one does.
    pub(super) fn row(&self, at: usize) -> (RowRef<'_>, usize) {
        let (key, change_at) = key_at(&self.arena, at);
        let mut chain = Chain::new(&self.arena[change_at..], self.arena.len() - change_at);
        let change = chain.next().expect("every row has a change");
        let end = change_at + chain.position();
        let slot = &self.arena[at..end];
        (RowRef { key, slot, change }, end)
    }

    /// Some of the keys, evenly spaced, and the greatest one.
    pub(super) fn samples(&self) -> impl Iterator<Item = &[u8]> {
        self.marks
            .iter()
            .chain([&self.last])
            .map(|at| self.key(*at as usize))
    }

    /// Where the first row starts whose key is not less than `bound`.
    pub(super) fn lower_bound(&self, bound: &[u8]) -> usize {
        let marks = self
            .marks
            .partition_point(|at| self.key(*at as usize) < bound);
        let mut at = marks
            .checked_sub(1)
            .map_or(0, |before| self.marks[before] as usize);
        while at < self.arena.len() {
            let (row, next) = self.row(at);
            if row.key >= bound {
                return at;
            }
            at = next;
        }
        at
    }
}

/// The first eight bytes of `key`, the first one on top, filled up with zeros: keys order as their
/// words do, or have the same.
pub(super) fn word(key: &[u8]) -> u64 {
    match key.first_chunk() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; 8];
            bytes[..key.len()].copy_from_slice(key);
            u64::from_be_bytes(bytes)
        }
    }
}

/// The key of the row at `start` and where its change begins.
fn key_at(arena: &[u8], start: usize) -> (&[u8], usize) {
    let mut at = start;
    let len = history::read_varint(arena, &mut at) as usize;
    (&arena[at..at + len], at + len)
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("a block is full far below 4 GiB, and keys are shorter than records")
}
