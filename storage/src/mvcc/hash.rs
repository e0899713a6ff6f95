//! HashKV: the hash of the key space at a revision, equal to etcd's to the bit.
//!
//! CRC-32C over the word `key` (the name of etcd's bucket), then, in revision order, the key and
//! the record of every row as etcd stores them (spec mvcc.md section 8). Which rows:
//!
//! ```text
//!              compacted C              revision R
//!   ───────────────┤───────────────────────┤──────────▶
//!   survivors only │     every row         │  none
//! ```
//!
//! Survivors are the rows at or before `C` that a compaction at `R` would leave, without tombstones;
//! or, where such a compaction would leave nothing at all, those that the one at `C` has left. Both
//! are decided from the index, so that the hash is the same however far the removal of rows has got.
//! (etcd takes what is still in its file where a compaction would leave nothing. It overlooks a key that
//! `R` itself deletes and puts again; were `C` = `R`, its compaction would remove that row, which is not
//! repeated here.)
//!
//! A hash is computed in [steps](Hashing::step) of some milliseconds, each with a read transaction
//! of its own. A pin keeps a later compaction from removing rows under it, for as long as the
//! patience of compactions lasts; past that the hash fails rather than being wrong.

use std::ops::ControlFlow;

use bytes::Bytes;
use ferrite_api::types::Revision;

use super::bucket_key::BucketKey;
use super::index::KeyIndex;
use super::pins::Pin;
use super::range::KeyRange;
use super::record;
use super::view::View;
use crate::error::Error;

/// Rows, and bytes of them, that one step reads.
const STEP_ROWS: usize = 2048;
const STEP_BYTES: usize = 2 << 20;

/// A hash, and what it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyValueHash {
    /// CRC-32C.
    pub hash: u32,
    /// The last compaction that it takes into account; -1 for none.
    pub compact_revision: i64,
    /// The revision of the newest rows that may be in it.
    pub revision: i64,
}

/// Why there is no hash.
#[derive(Debug)]
pub enum HashError {
    /// The revision is below the last compaction.
    Compacted,
    /// The revision is above the store revision.
    Future,
    /// A later compaction did not wait any longer: to be begun again on a newer view.
    Overtaken,
    /// The storage failed or is damaged.
    Storage(Error),
}

/// A hash being computed.
#[derive(Debug)]
pub struct Hashing {
    view: View,
    pin: Pin,
    compacted: i64,
    revision: i64,
    /// A row at or before `compacted` counts if it is what a read at this revision finds.
    survivors_at: i64,
    /// Rows up to here are read from the page file, later ones from memory.
    stored: i64,
    /// Where the next step begins.
    next: Revision,
    crc: u32,
}

/// Whether a compaction at `revision` would leave anything, as etcd counts it: from a key that the
/// revision has deleted and put again, its index keeps nothing.
fn leaves_any(view: &View, revision: i64) -> bool {
    let all = KeyRange::all();
    let alive = view.index.count(&all, revision);
    if alive == 0 {
        return false;
    }
    let changes = view.index.changes(&all, revision - 1, revision);
    let mut again: Vec<&[u8]> = changes
        .filter(|(_, change)| change.tombstone)
        .map(|(key, _)| key)
        .filter(|key| view.index.get(key, revision).is_some())
        .collect();
    again.dedup();
    alive > again.len() as u64
}

impl Hashing {
    /// Begins the hash at `revision`; 0 means the newest. A negative revision has no rows.
    ///
    /// # Errors
    /// [`HashError::Compacted`], [`HashError::Future`].
    pub fn at(view: View, revision: i64) -> Result<Self, HashError> {
        if revision > 0 && revision < view.compacted {
            return Err(HashError::Compacted);
        }
        if revision > view.revision {
            return Err(HashError::Future);
        }
        let revision = if revision == 0 {
            view.revision
        } else {
            revision
        };
        let compacted = view.compacted;
        let any_left = leaves_any(&view, revision);
        Ok(Self::new(view, compacted, revision, any_left))
    }

    /// Begins the hash that the compaction to `target` leaves behind: over what it found, that is
    /// with the compaction before it as the last one. It counts a tombstone at `target` as left.
    pub(crate) fn of_compaction(view: View, previous: i64, target: i64) -> Self {
        let all = KeyRange::all();
        let any_left = view.index.count(&all, target) > 0
            || view
                .index
                .changes(&all, target - 1, target)
                .any(|(_, change)| change.tombstone);
        Self::new(view, previous, target, any_left)
    }

    fn new(view: View, compacted: i64, revision: i64, any_left: bool) -> Self {
        // Read after the view was made: what the file does not have yet is in the view.
        let stored = view.page.meta().revision.min(revision);
        Self {
            pin: view.pins.pin(compacted),
            compacted,
            revision,
            survivors_at: if any_left { revision } else { compacted },
            stored,
            next: Revision::default(),
            crc: crc32c::crc32c(b"key"),
            view,
        }
    }

    /// Hashes some more rows: [`STEP_ROWS`] or [`STEP_BYTES`] of them. The hash comes from the last
    /// step.
    ///
    /// # Errors
    /// [`HashError::Overtaken`], [`HashError::Storage`].
    pub fn step(&mut self) -> Result<Option<KeyValueHash>, HashError> {
        if self.next.main <= self.stored {
            self.stored_rows().map_err(HashError::Storage)?;
            // Only now: had rows been missing from what was read, this would know.
            if !self.pin.holds() {
                return Err(HashError::Overtaken);
            }
            return Ok(None);
        }
        self.recent_rows().map_err(HashError::Storage)?;
        Ok((self.next.main > self.revision).then_some(KeyValueHash {
            hash: self.crc,
            compact_revision: self.compacted,
            revision: self.revision,
        }))
    }

    /// All steps at once.
    ///
    /// # Errors
    /// As [`Hashing::step`].
    pub fn run(mut self) -> Result<KeyValueHash, HashError> {
        loop {
            if let Some(hash) = self.step()? {
                return Ok(hash);
            }
        }
    }

    fn stored_rows(&mut self) -> Result<(), Error> {
        let (mut rows, mut bytes) = (0, 0);
        let mut failure = None;
        let reader = self.view.page.reader()?;
        let (from, stored) = (self.next, self.stored);
        // Past everything, unless the visitor says otherwise.
        self.next = Revision::new(stored + 1, 0);
        reader.scan(from, &mut |revision, tombstone, record| {
            if revision.main > stored {
                return ControlFlow::Break(());
            }
            if let Err(error) = self.row(revision, tombstone, &record) {
                failure = Some(error);
                return ControlFlow::Break(());
            }
            rows += 1;
            bytes += record.len();
            if rows >= STEP_ROWS || bytes >= STEP_BYTES {
                self.next = Revision::new(revision.main, revision.sub + 1);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        failure.map_or(Ok(()), Err)
    }

    fn recent_rows(&mut self) -> Result<(), Error> {
        let recent = self.view.recent.clone();
        let from = self.next;
        let mut rows = recent
            .between(from.main - 1, self.revision)
            .skip_while(|row| row.revision < from);
        for row in rows.by_ref().take(STEP_ROWS) {
            self.row(row.revision, row.tombstone, &row.record)?;
        }
        self.next = rows
            .next()
            .map_or(Revision::new(self.revision + 1, 0), |row| row.revision);
        Ok(())
    }

    fn row(&mut self, revision: Revision, tombstone: bool, record: &Bytes) -> Result<(), Error> {
        if revision.main <= self.compacted {
            let survives =
                !tombstone && survives(&self.view.index, revision, record, self.survivors_at)?;
            if !survives {
                return Ok(());
            }
        }
        let key = BucketKey::new(revision, tombstone);
        self.crc = crc32c::crc32c_append(self.crc, key.as_slice());
        self.crc = crc32c::crc32c_append(self.crc, record);
        Ok(())
    }
}

/// Whether the put at `revision` is what a read at revision `at` finds.
fn survives(index: &KeyIndex, revision: Revision, record: &Bytes, at: i64) -> Result<bool, Error> {
    let key = record::decode(revision, record)?.key;
    Ok(index
        .get(&key, at)
        .is_some_and(|meta| meta.modified == revision))
}
