//! Recent rows: what was applied and is not yet in the page file.
//!
//! Apply appends, readers look up by revision, a checkpoint copies a prefix into the page file and
//! then the prefix is dropped. Rows stand in fixed-size chunks that are shared, append-only and
//! filled through `OnceLock`, so a pinned [`RecentRows`] costs one reference count and needs no
//! lock: it simply also sees rows that were appended later, which no index of its time names.
//!
//! Invariant: revisions strictly increase from row to row and from chunk to chunk.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use ferrite_api::types::Revision;

/// Rows in the first chunk; each has twice as many as the one before it.
const FIRST_CHUNK_ROWS: usize = 8;

/// Rows in one chunk at most: large enough that the list of chunks stays short (32 MB of small rows
/// are about 100 chunks), small enough that dropping a checkpointed prefix frees memory promptly.
const CHUNK_ROWS: usize = 1024;

/// A chunk that holds this many bytes takes no further row: chunks are dropped whole.
const CHUNK_BYTES: usize = 1 << 20;

/// One change: a put or a tombstone, with the encoded `mvccpb.KeyValue` as every member stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where in the history the change stands.
    pub revision: Revision,
    /// Whether the change is a deletion; its record then holds the key only.
    pub tombstone: bool,
    /// The encoded `mvccpb.KeyValue`.
    pub record: Bytes,
}

impl Row {
    /// The memory that the row holds, for the budget (bytes).
    fn cost(&self) -> usize {
        self.record.len() + size_of::<OnceLock<Row>>()
    }
}

#[derive(Debug)]
struct Chunk {
    slots: Box<[OnceLock<Row>]>,
    /// Filled slots; a slot below this count is set.
    len: AtomicUsize,
    /// Sum of the costs of the filled slots.
    bytes: AtomicUsize,
}

impl Chunk {
    fn new(rows: usize) -> Self {
        Self {
            slots: (0..rows).map(|_| OnceLock::new()).collect(),
            len: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    fn row(&self, at: usize) -> &Row {
        self.slots[at]
            .get()
            .expect("slots below the length are filled before it is published")
    }

    fn has_room(&self) -> bool {
        self.len() < self.slots.len() && self.bytes.load(Ordering::Relaxed) < CHUNK_BYTES
    }

    fn last(&self) -> Option<&Row> {
        self.len().checked_sub(1).map(|at| self.row(at))
    }

    /// The position of the first row at or after `revision` among the first `len` rows.
    fn lower_bound(&self, revision: Revision, len: usize) -> usize {
        let (mut low, mut high) = (0, len);
        while low < high {
            let middle = low.midpoint(high);
            if self.row(middle).revision < revision {
                low = middle + 1
            } else {
                high = middle
            }
        }
        low
    }
}

/// A shared, growing list of rows in revision order. Cloning pins it.
#[derive(Clone, Debug, Default)]
pub struct RecentRows {
    chunks: Arc<Vec<Arc<Chunk>>>,
    /// The last revision of which a row was dropped: the others of its rows may be here still.
    dropped: i64,
}

impl RecentRows {
    /// The row at exactly `revision`, if it is still here.
    pub fn get(&self, revision: Revision) -> Option<&Row> {
        let at = self
            .chunks
            .partition_point(|chunk| chunk.last().is_some_and(|last| last.revision < revision));
        let chunk = self.chunks.get(at)?;
        let len = chunk.len();
        let at = chunk.lower_bound(revision, len);
        (at < len)
            .then(|| chunk.row(at))
            .filter(|row| row.revision == revision)
    }

    /// Whether a row at `revision` may be here. Quick for what is older than everything here, which
    /// is most of what a long read asks for.
    pub(crate) fn reaches(&self, revision: Revision) -> bool {
        let first = self.chunks.first();
        first.is_some_and(|chunk| chunk.len() > 0 && chunk.row(0).revision <= revision)
    }

    /// The rows with `after < main <= upto` in revision order, but for the revisions that are not
    /// here as a whole any more: these are missing altogether.
    pub fn between(&self, after: i64, upto: i64) -> impl Iterator<Item = &Row> {
        let from = Revision::new(after.max(self.dropped) + 1, 0);
        let first = self
            .chunks
            .partition_point(|chunk| chunk.last().is_some_and(|last| last.revision < from));
        self.chunks[first..]
            .iter()
            .flat_map(move |chunk| {
                let len = chunk.len();
                (chunk.lower_bound(from, len)..len).map(move |at| chunk.row(at))
            })
            .take_while(move |row| row.revision.main <= upto)
    }

    /// Appends a row. Only the owner of the store calls this: there is one writer.
    pub(crate) fn push(&mut self, row: Row) {
        let last = self.chunks.last();
        debug_assert!(
            last.and_then(|chunk| chunk.last())
                .is_none_or(|last| last.revision < row.revision),
            "row {} appended out of order",
            row.revision
        );
        let chunk = match last {
            Some(chunk) if chunk.has_room() => chunk,
            _ => {
                // Copies the list of chunks (not the chunks) when a reader has it pinned.
                let chunks = Arc::make_mut(&mut self.chunks);
                let rows = chunks.last().map_or(FIRST_CHUNK_ROWS, |last| {
                    CHUNK_ROWS.min(2 * last.slots.len())
                });
                chunks.push(Arc::new(Chunk::new(rows)));
                &chunks[chunks.len() - 1]
            }
        };
        let len = chunk.len();
        chunk.bytes.fetch_add(row.cost(), Ordering::Relaxed);
        let filled = chunk.slots[len].set(row);
        assert!(filled.is_ok(), "slot {len} was filled twice: two writers");
        chunk.len.store(len + 1, Ordering::Release);
    }

    /// Drops whole chunks in which every row has `main <= upto`; the rest waits for its chunk.
    pub(crate) fn trim(&mut self, upto: i64) {
        let drop = self
            .chunks
            .partition_point(|chunk| chunk.last().is_some_and(|last| last.revision.main <= upto));
        let last = drop.checked_sub(1).and_then(|at| self.chunks[at].last());
        if let Some(last) = last {
            self.dropped = last.revision.main;
            Arc::make_mut(&mut self.chunks).drain(..drop);
        }
    }

    /// The memory held by the rows (bytes).
    pub fn bytes(&self) -> usize {
        self.chunks
            .iter()
            .map(|chunk| chunk.bytes.load(Ordering::Relaxed))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(main: i64, sub: i64) -> Row {
        let record = Bytes::from(format!("{main}.{sub}"));
        Row {
            revision: Revision::new(main, sub),
            tombstone: false,
            record,
        }
    }

    #[test]
    fn finds_rows_across_chunks_and_after_trim() {
        let mut rows = RecentRows::default();
        for main in 2..5000 {
            rows.push(row(main, 0));
            rows.push(row(main, 1));
        }
        let pinned = rows.clone();
        rows.trim(3000);
        for main in [2, 3, 2999, 3000, 3001, 4999] {
            assert_eq!(pinned.get(Revision::new(main, 1)), Some(&row(main, 1)));
            assert_eq!(pinned.get(Revision::new(main, 2)), None);
        }
        assert_eq!(rows.get(Revision::new(2, 0)), None);
        assert!(!rows.reaches(Revision::new(2, 0)) && rows.reaches(Revision::new(3001, 0)));
        assert_eq!(rows.get(Revision::new(3001, 0)), Some(&row(3001, 0)));
        assert!(rows.bytes() < pinned.bytes());
        let mains: Vec<_> = rows.between(4000, 4002).map(|row| row.revision).collect();
        let expected = [(4001, 0), (4001, 1), (4002, 0), (4002, 1)]
            .map(|(main, sub)| Revision::new(main, sub));
        assert_eq!(mains, expected);
    }

    #[test]
    fn a_revision_is_there_as_a_whole_or_not_at_all() {
        let mut rows = RecentRows::default();
        for (main, subs) in [(2, 1000), (3, 2000), (4, 3), (5, 1)] {
            for sub in 0..subs {
                rows.push(row(main, sub));
            }
        }
        for upto in 1..=5 {
            rows.trim(upto);
            let mut subs = [0; 6];
            for row in rows.between(0, 5) {
                assert_eq!(row.revision.sub, subs[row.revision.main as usize]);
                subs[row.revision.main as usize] += 1;
            }
            let whole = [0, 0, 1000, 2000, 3, 1];
            for (main, found) in subs.into_iter().enumerate() {
                let gone = found == 0 && main as i64 <= upto;
                assert!(
                    gone || found == whole[main],
                    "{found} of {main} after {upto}"
                );
            }
        }
    }

    #[test]
    fn empty_list_has_nothing() {
        let mut rows = RecentRows::default();
        rows.trim(10);
        assert_eq!(rows.get(Revision::new(2, 0)), None);
        assert_eq!(rows.between(0, 10).count(), 0);
        assert_eq!(rows.bytes(), 0);
    }
}
