//! How many pages a commit may allocate: an upper bound, made before redb hears of the commit.
//!
//! The bound assumes that no page of the present file is free, that every change copies its whole
//! path from the root, and that leaves are half empty. So it is several times what a commit really
//! takes; it only has to be there, and what is left over serves the next commit. A test holds the
//! bound against what redb does.

use super::batch::{Batch, TableWrite};
use super::layout::{PAGE, REGION_PAGES};
use super::row::{KEY_BYTES, LARGE_BYTES, LARGE_FROM_BYTES, SMALL_BYTES};

/// Pages that one commit may allocate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Need {
    /// All of them.
    pub(super) pages: u64,
    /// Those of the largest single run.
    pub(super) largest: u64,
}

/// Bytes that redb keeps beside each pair in a leaf, at most.
const PAIR_OVERHEAD: u64 = 16;

/// Pages from root to leaf of the largest tree there can be. A branch page of row keys has at
/// least 60 children, so 5 levels hold 60^5 pages.
const DEPTH: u64 = 5;

/// Trees of redb's own that every commit changes: the table of tables, the freed pages of both
/// kinds, the allocator state.
const SYSTEM_TREES: u64 = 6;

/// Pages that removing one row may allocate: its leaf, the branch above, and what it is merged with.
const PAGES_PER_REMOVAL: u64 = 3;

/// The need of `batch` in a page space of `pages` pages.
pub(super) fn need(batch: &Batch, pages: u64) -> Need {
    let mut largest = 1;

    // New rows go to the end of the table: leaves one after the other, and their branches.
    let row_bytes: u64 = batch
        .rows
        .iter()
        .map(|row| {
            let parts = (row.record.len() / SMALL_BYTES + 1) as u64;
            row.record.len() as u64 + parts * (KEY_BYTES as u64 + 4 + PAIR_OVERHEAD)
        })
        .sum();
    if batch
        .rows
        .iter()
        .any(|row| row.record.len() >= LARGE_FROM_BYTES)
    {
        largest = (LARGE_BYTES as u64).div_ceil(PAGE);
    }
    let leaves = 2 * row_bytes.div_ceil(PAGE);
    let mut sum = leaves + leaves / 16 + DEPTH;

    sum += removal(batch.remove.len() as u64);

    for write in &batch.tables {
        sum += 2 + DEPTH;
        if let TableWrite::Put { key, value, .. } = write {
            let bytes = (key.len() + value.len()) as u64 + 4 + PAIR_OVERHEAD;
            let run = bytes.div_ceil(PAGE).next_power_of_two();
            largest = largest.max(run);
            sum += 2 * run;
        }
    }
    with_system(sum, largest, pages)
}

/// What to keep for later when a commit adds to a file of `rows` rows: enough to compact a full
/// disk, which gives pages back.
pub(super) fn spare(rows: u64, pages: u64) -> Need {
    let Need {
        pages: sum,
        largest,
    } = with_system(removal(rows.min(REMOVE_ROWS)), 1, pages);
    // The first step of a compaction may make the file grow before anything is free. The next one
    // needs as much again.
    let growth = sum.min(u64::from(REGION_PAGES));
    Need {
        pages: sum + growth,
        largest,
    }
}

/// How many rows compaction removes in one commit.
const REMOVE_ROWS: u64 = 2000;

fn removal(rows: u64) -> u64 {
    rows * PAGES_PER_REMOVAL + DEPTH
}

/// Adds what redb's own trees need when `sum` pages are replaced.
fn with_system(mut sum: u64, largest: u64, pages: u64) -> Need {
    // Every page that is replaced is listed as freed, 8 bytes each, in up to two lists.
    sum += 2 * (2 * sum * 8).div_ceil(PAGE);
    // The allocator state: some bits for every page and a page's part for every region, written
    // twice (reserved, then filled in).
    let space = pages + 2 * sum;
    let state = space.div_ceil(4).div_ceil(PAGE) + space.div_ceil(u64::from(REGION_PAGES));
    sum += 2 * state + SYSTEM_TREES * (DEPTH + 4);
    Need {
        pages: sum,
        largest: largest.max(4),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ferrite_api::types::Revision;

    use super::super::batch::RowWrite;
    use super::*;

    fn rows(count: i64, len: usize) -> Batch {
        let record = Bytes::from(vec![0; len]);
        let rows = (2..2 + count).map(|main| RowWrite {
            revision: Revision::new(main, 0),
            tombstone: false,
            record: record.clone(),
        });
        Batch {
            rows: rows.collect(),
            ..Batch::default()
        }
    }

    #[test]
    fn needs_are_in_proportion() {
        let mib = |need: Need| (need.pages * PAGE) >> 20;
        let one_gib = (1 << 30) / PAGE;
        assert_eq!(mib(need(&rows(1, 300), 100)), 0);
        assert!(mib(need(&rows(1, 300), one_gib)) < 2);
        assert!((60..90).contains(&mib(need(&rows(110_000, 300), one_gib))));
        assert!((60..90).contains(&mib(need(&rows(32, 1 << 20), one_gib))));
        assert!((24..48).contains(&mib(spare(1_000_000, one_gib))));
        assert!(mib(spare(100, 100)) < 4);
    }

    #[test]
    fn a_long_value_needs_a_long_run() {
        assert_eq!(need(&rows(1, 300), 100).largest, 4);
        let value = Bytes::from(vec![0; 100_000]);
        let write = TableWrite::put(
            super::super::Table::AuthRoles,
            Bytes::from_static(b"r"),
            value,
        );
        let batch = Batch {
            tables: vec![write],
            ..Batch::default()
        };
        assert_eq!(need(&batch, 100).largest, 32);
    }
}
