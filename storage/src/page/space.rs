//! How many pages a commit may allocate: an upper bound, made before redb hears of the commit.
//!
//! The bound assumes that no page of the present file is free, that every change copies its whole
//! path from the root, and that leaves are half empty. So it is several times what a commit really
//! takes; it only has to be there, and what is left over serves the next commit. A test holds the
//! bound against what redb does.

use super::batch::{Batch, TableWrite};
use super::layout::{PAGE, REGION_PAGES};
use super::row::{CHUNK_BYTES, KEY_BYTES};

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

/// The need of `batch` in a page space of `pages` pages.
pub(super) fn need(batch: &Batch, pages: u64) -> Need {
    let mut largest = 1;
    let mut sum = 0;

    // New rows go to the end of the table: full leaves one after the other, and their branches.
    let row_bytes: u64 = batch
        .rows
        .iter()
        .map(|row| {
            let parts = (row.record.len() / CHUNK_BYTES + 1) as u64;
            row.record.len() as u64 + parts * (KEY_BYTES as u64 + 4 + PAIR_OVERHEAD)
        })
        .sum();
    let leaves = 2 * row_bytes.div_ceil(PAGE);
    sum += leaves + leaves / 16 + DEPTH;

    // A removed row copies its leaf, its path, and what it is merged with.
    sum += batch.remove.len() as u64 * 4 + DEPTH;

    for write in &batch.tables {
        sum += 2 + DEPTH;
        if let TableWrite::Put { key, value, .. } = write {
            let bytes = (key.len() + value.len()) as u64 + 4 + PAIR_OVERHEAD;
            let run = bytes.div_ceil(PAGE).next_power_of_two();
            largest = largest.max(run);
            sum += 2 * run;
        }
    }

    // Every page that is replaced is listed as freed, 8 bytes each, in up to two lists.
    sum += 2 * (2 * sum * 8).div_ceil(PAGE);
    // The allocator state: a few bits for every page, written twice (reserved, then filled in).
    let state = (2 * (pages + 2 * sum) / 4).div_ceil(PAGE)
        + 2 * (pages + 2 * sum).div_ceil(u64::from(REGION_PAGES));
    largest = largest.max(4);
    sum += 2 * state + SYSTEM_TREES * (DEPTH + 4);
    Need { pages: sum, largest }
}
