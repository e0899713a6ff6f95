//! The rows of the key space as of one applied entry, in order, while the state goes on.

use std::ops::ControlFlow;

use bytes::Bytes;
use ferrite_api::types::Revision;

use super::{Error, Limits};
use crate::courtesy::Courtesy;
use crate::mvcc::index::KeyIndex;
use crate::mvcc::pins::Pin;
use crate::mvcc::recent::{RecentRows, Row};
use crate::mvcc::record_head;
use crate::mvcc::view::View;
use crate::page::{self, Meta, RowId};
use crate::state::State;

/// Is shown a row: its place, what it adds to [`Meta::digest`], its record. Breaks when that is
/// enough for this call.
pub(crate) type Visit<'v> = dyn FnMut(RowId, u64, &Bytes) -> ControlFlow<()> + 'v;

/// Rows, and the sum of their digests.
type Counted = (u64, u64);

/// A walk over the rows of a state. It may go on on any thread; it holds no transaction of the page
/// file between two calls.
pub(crate) struct Rows {
    /// The entry as of which the state was captured.
    index: u64,
    /// The last compaction before it.
    compacted: i64,
    view: View,
    pin: Pin,
    /// Whether rows that the last compaction dooms may still be there.
    removing: bool,
    /// Of the page file when the state was captured.
    meta: Meta,
    /// What there is, if that is known.
    expected: Option<Counted>,
    /// The first row that was not looked at.
    pub(super) next: Revision,
    found: Counted,
}

impl Rows {
    pub(crate) fn of(state: &State) -> Self {
        let view = state.view();
        Self {
            index: state.applied().get(),
            compacted: view.compacted,
            pin: view.pins.pin(view.compacted),
            removing: state.removed_through() < view.compacted,
            meta: view.page.meta(),
            expected: None,
            next: Revision::default(),
            found: (0, 0),
            view,
        }
    }

    /// The revision of the state.
    pub(crate) fn revision(&self) -> i64 {
        self.view.revision
    }

    /// The last compaction; -1 for none.
    pub(crate) fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Of the page file when the state was captured.
    pub(crate) fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Rows that are not in the page file, as [`Rows::meta`] counts it.
    pub(crate) fn beside(&self) -> impl Iterator<Item = &Row> {
        self.view
            .recent
            .between(self.meta.revision, self.view.revision)
    }

    /// Bytes of the records of those rows.
    pub(crate) fn bytes_beside(&self) -> u64 {
        self.view.recent.bytes() as u64
    }

    /// What was visited: rows, and the sum of their digests.
    pub(crate) fn found(&self) -> (u64, u64) {
        self.found
    }

    /// To be called once, before the first row: notes how many there are.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn begin(&mut self) -> Result<(), Error> {
        self.expected = self.count()?;
        Ok(())
    }

    /// Visits the next rows. `false`: there are no more, and they were as many as there should be.
    ///
    /// # Errors
    /// [`Error::Overtaken`], [`Error::Storage`]. It is over then.
    pub(crate) fn step(&mut self, limits: &Limits, visit: &mut Visit<'_>) -> Result<bool, Error> {
        if self.next.main > self.view.revision {
            self.check_found()?;
            return Ok(false);
        }
        let stored = self.let_go();
        if self.next.main > stored {
            self.recent_rows(visit)?;
            return Ok(true);
        }
        self.stored_rows(stored, limits, visit)?;
        // Only now: had rows been missing from what was read, this would know.
        match self.pin.holds() {
            true => Ok(true),
            false => Err(Error::Overtaken {
                index: self.index,
                compacted: self.compacted,
            }),
        }
    }

    /// Whether compactions are to wait longer for this than for others.
    pub(crate) fn hold(&mut self, long: bool) {
        if self.pin.is_long() != long {
            // The new one before the old one goes.
            self.pin = match long {
                true => self.view.pins.pin_long(self.compacted),
                false => self.view.pins.pin(self.compacted),
            };
        }
    }

    /// Gives up what the page file has by now. Returns up to which revision it has the rows.
    pub(crate) fn let_go(&mut self) -> i64 {
        // Checkpoints go on meanwhile: what they have stored need not be kept in memory.
        let stored = self.view.page.meta().revision;
        if stored >= self.view.revision {
            self.view.recent = RecentRows::default();
        }
        // Nor need the old nodes of the index, where it is not asked any more.
        if !self.removing || self.next.main > self.view.compacted {
            self.view.index = KeyIndex::default();
        }
        stored.min(self.view.revision)
    }

    fn stored_rows(
        &mut self,
        stored: i64,
        limits: &Limits,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        let (mut rows, mut bytes) = (0, 0);
        let mut failure = None;
        let reader = self.view.page.reader()?;
        let mut courtesy = Courtesy::default();
        let from = self.next;
        // Past everything, unless the visitor says otherwise.
        self.next = Revision::new(stored + 1, 0);
        reader.scan_with_digests(from, &mut |id, digest, record| {
            if id.revision.main > stored {
                return ControlFlow::Break(());
            }
            let enough = match self.row(id, digest, &record, visit) {
                Ok(flow) => flow.is_break(),
                Err(error) => {
                    failure = Some(error);
                    return ControlFlow::Break(());
                }
            };
            courtesy.worked();
            rows += 1;
            bytes += record.len();
            if !enough && rows < limits.step_rows && bytes < limits.step_bytes {
                return ControlFlow::Continue(());
            }
            self.next = Revision::new(id.revision.main, id.revision.sub + 1);
            ControlFlow::Break(())
        })?;
        failure.map_or(Ok(()), Err)
    }

    fn recent_rows(&mut self, visit: &mut Visit<'_>) -> Result<(), Error> {
        let (recent, from) = (self.view.recent.clone(), self.next);
        let mut rows = recent
            .between(from.main - 1, self.view.revision)
            .skip_while(|row| row.revision < from)
            .peekable();
        while let Some(row) = rows.next() {
            let id = id_of(row);
            let digest = page::record_digest(id, &row.record)?;
            if self.row(id, digest, &row.record, visit)?.is_break()
                && let Some(next) = rows.peek()
            {
                self.next = next.revision;
                return Ok(());
            }
        }
        self.next = Revision::new(self.view.revision + 1, 0);
        Ok(())
    }

    fn row(
        &mut self,
        id: RowId,
        digest: u64,
        record: &Bytes,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, Error> {
        if self.removing && self.is_doomed(id, record)? {
            return Ok(ControlFlow::Continue(()));
        }
        self.found.0 += 1;
        self.found.1 = self.found.1.wrapping_add(digest);
        Ok(visit(id, digest, record))
    }

    /// Whether the last compaction removes the row. Some such rows are gone and some are not, and
    /// not even the older ones first, since they are removed while this reads: with a put whose
    /// deletion is gone, the key would live again.
    fn is_doomed(&self, id: RowId, record: &Bytes) -> Result<bool, Error> {
        let compacted = self.view.compacted;
        if id.revision.main > compacted {
            return Ok(false);
        }
        if id.tombstone {
            return Ok(id.revision.main < compacted);
        }
        let head = record_head(id.revision, record)?;
        let newest = self.view.index.get(&head.key, compacted);
        Ok(newest.is_none_or(|newest| newest.modified != id.revision))
    }

    /// The rows as the page file counts them, and those beside it. Not known while a compaction
    /// removes some.
    fn count(&self) -> Result<Option<Counted>, Error> {
        if self.removing {
            return Ok(None);
        }
        let (mut rows, mut digest) = (self.meta.rows, self.meta.digest);
        for row in self.beside() {
            rows += 1;
            digest = digest.wrapping_add(page::record_digest(id_of(row), &row.record)?);
        }
        Ok(Some((rows, digest)))
    }

    /// A row that is lost without a trace is not to be lost elsewhere, too.
    fn check_found(&self) -> Result<(), Error> {
        match self.expected {
            Some(expected) if expected != self.found => {
                let found = self.found;
                let what = format!(
                    "{} rows of digest {:016x} were read for a snapshot, {} of {:016x} are counted",
                    found.0, found.1, expected.0, expected.1
                );
                Err(crate::Error::Corrupt { what }.into())
            }
            _ => Ok(()),
        }
    }
}

fn id_of(row: &Row) -> RowId {
    RowId {
        revision: row.revision,
        tombstone: row.tombstone,
    }
}
