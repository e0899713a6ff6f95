//! A commit to a file that others wait beside.
//!
//! redb writes the pages of a commit in no order and all at once, and a sync of them keeps the disk busy
//! for tens of milliseconds, in which the log syncs nothing. So before the page file is synced, the disk
//! begins with its pages in ascending order, a piece at a time, and the log's syncs come in between. With
//! this (and a [`Courtesy`](crate::courtesy::Courtesy) meanwhile) the slowest hundredth of puts of a
//! thousand clients of three members took 51 ms in place of 62.

use std::num::NonZeroU64;
use std::thread;
use std::time::{Duration, Instant};

use ferrite_disk::DiskFile;

use super::layout::PAGE;

/// Bytes that are begun at once.
const PIECE_BYTES: u64 = 256 << 10;

/// All pauses together take at most this part of the time since the sync before: what is applied meanwhile
/// is what the next one has to write.
const SHARE: u32 = 8;

/// The pages that were written since the last sync.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    /// Bytes of a second; without, nothing is noted and nothing is done.
    rate: Option<NonZeroU64>,
    /// Where they begin in the file.
    pages: Vec<u64>,
    /// When the last sync was due that had some.
    synced: Option<Instant>,
}

impl Pacing {
    /// Limits the bytes of a second from now on.
    pub(super) fn limit(&mut self, rate: Option<NonZeroU64>) {
        self.rate = rate;
        self.pages.clear();
    }

    /// Whole pages at `offset`, `len` bytes, were written.
    pub(super) fn written(&mut self, offset: u64, len: u64) {
        if self.rate.is_some() {
            let pages = (offset..offset + len).step_by(PAGE as usize);
            self.pages.extend(pages);
        }
    }

    /// Has the disk write them. What is written, and where, does not depend on the pauses.
    pub(super) fn write(&mut self, file: &dyn DiskFile) {
        let Some(rate) = self.rate else {
            return;
        };
        if self.pages.is_empty() {
            return;
        }
        self.pages.sort_unstable();
        self.pages.dedup();
        let bytes = self.pages.len() as u64 * PAGE;
        let wanted = Duration::from_secs_f64(bytes as f64 / rate.get() as f64);
        let pauses = match self.synced {
            Some(synced) => wanted.min(synced.elapsed() / SHARE),
            None => wanted,
        };
        for (from, to) in pieces(&self.pages) {
            file.start_writing(from, to);
            thread::sleep(pauses.mul_f64((to - from) as f64 / bytes as f64));
        }
        self.pages.clear();
        self.synced = Some(Instant::now());
    }
}

/// The ranges that pages in ascending order make up, none longer than a piece.
fn pieces(pages: &[u64]) -> impl Iterator<Item = (u64, u64)> {
    let adjacent = |a: &u64, b: &u64| a + PAGE == *b;
    pages.chunk_by(adjacent).flat_map(|run| {
        let pieces = run.chunks((PIECE_BYTES / PAGE) as usize);
        pieces.map(|piece| (piece[0], piece[0] + piece.len() as u64 * PAGE))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Each page is in one piece, and pieces are as long as they can be.
        #[test]
        fn pieces_hold_all_pages(numbers in prop::collection::btree_set(0u64..2000, 0..1500)) {
            let pages: Vec<u64> = numbers.iter().map(|number| number * PAGE).collect();
            let pieces: Vec<_> = pieces(&pages).collect();
            let held: Vec<u64> = pieces
                .iter()
                .flat_map(|(from, to)| (*from..*to).step_by(PAGE as usize))
                .collect();
            prop_assert_eq!(held, pages);
            for (from, to) in &pieces {
                prop_assert!(to - from <= PIECE_BYTES);
            }
            for pair in pieces.windows(2) {
                let [(from, to), (next, _)] = pair else { unreachable!() };
                prop_assert!(to < next || to - from == PIECE_BYTES);
            }
        }
    }
}
