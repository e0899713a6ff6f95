//! Sending: the state as of one applied entry, as a stream of bytes.

use std::fmt;
use std::ops::ControlFlow;

use bytes::Bytes;
use ferrite_api::types::Revision;

use super::format::{Header, Totals, Writer};
use super::{Error, Limits};
use crate::leases;
use crate::mvcc::index::KeyIndex;
use crate::mvcc::pins::Pin;
use crate::mvcc::recent::{RecentRows, Row};
use crate::mvcc::record_head;
use crate::mvcc::view::View;
use crate::page::{self, ConfState, Meta, RowId, Table, TableWrite};
use crate::state::State;

/// The tables that no entry changes yet. They are not in memory.
const ONLY_STORED: [Table; 3] = [Table::Auth, Table::AuthUsers, Table::AuthRoles];

impl State {
    /// Captures the state as of the last applied entry, to be sent to another member. Reads nothing
    /// from the disk, and copies nothing but what the small tables hold.
    pub fn export(&self) -> Export {
        self.expect_conf_state();
        let view = self.view();
        let meta = view.page.meta();
        let header = Header {
            cluster_id: self.cluster_id().get(),
            index: self.applied().get(),
            term: self.applied_term().get(),
            revision: view.revision,
            compacted: view.compacted,
            storage_version: meta.storage_version.clone(),
            ..Header::default()
        };
        let leases: Vec<_> = self.leases().iter().collect();
        let leases = leases.into_iter().map(|(id, lease)| leases::row(id, lease));
        Export {
            header: header.with_conf_state(self.conf_state().clone()),
            small: Box::new(self.cluster_rows().into_iter().chain(leases)),
            pin: view.pins.pin(view.compacted),
            removing: self.removed_through() < view.compacted,
            meta,
            expected: None,
            next: Revision::default(),
            totals: Totals::default(),
            writer: Writer::default(),
            phase: Phase::Begin,
            limits: Limits::default(),
            view,
        }
    }
}

/// A state on its way to another member; see the [module](super). It may be used on any thread; it
/// holds no transaction of the page file between two pieces.
pub struct Export {
    header: Header,
    /// The small tables as they are in memory.
    small: Box<dyn Iterator<Item = TableWrite> + Send>,
    view: View,
    pin: Pin,
    /// Whether rows that the last compaction dooms may still be there.
    removing: bool,
    /// Of the page file when the state was captured.
    meta: Meta,
    /// What there is to be sent, if that is known.
    expected: Option<Counted>,
    /// The first row that was not looked at.
    next: Revision,
    totals: Totals,
    writer: Writer,
    phase: Phase,
    limits: Limits,
}

/// Rows, and the sum of their digests.
type Counted = (u64, u64);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Begin,
    SmallRows,
    Rows,
    Done,
    Failed,
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export")
            .field("header", &self.header)
            .field("phase", &self.phase)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl Export {
    /// The same export in pieces of another size.
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The last entry that is in it.
    pub fn index(&self) -> u64 {
        self.header.index
    }

    /// The term of that entry.
    pub fn term(&self) -> u64 {
        self.header.term
    }

    /// Raft's configuration as of that entry.
    pub fn conf_state(&self) -> ConfState {
        self.header.conf_state()
    }

    /// About how many bytes will be sent.
    pub fn size_hint(&self) -> u64 {
        self.meta.live_bytes + self.view.recent.bytes() as u64
    }

    /// The next piece of the stream: at least one byte, less than [`Limits::piece_bytes`] and a row.
    /// `None` after the last. Reads the page file for some milliseconds, in short transactions.
    ///
    /// # Errors
    /// [`Error::Overtaken`], [`Error::Storage`]. It is over then.
    pub fn next_piece(&mut self) -> Result<Option<Bytes>, Error> {
        if self.phase == Phase::Failed {
            return Err(Error::stream("the export has failed before"));
        }
        if let Err(error) = self.fill() {
            self.phase = Phase::Failed;
            return Err(error);
        }
        let piece = self.writer.take();
        Ok((!piece.is_empty()).then_some(piece))
    }

    fn fill(&mut self) -> Result<(), Error> {
        while !self.is_full() {
            match self.phase {
                Phase::Begin => {
                    self.expected = self.count()?;
                    self.writer.header(&self.header);
                    self.only_stored()?;
                    self.phase = Phase::SmallRows;
                }
                Phase::SmallRows => match self.small.next() {
                    Some(write) => self.small_row(&write),
                    None => self.phase = Phase::Rows,
                },
                Phase::Rows if self.next.main <= self.view.revision => self.rows()?,
                Phase::Rows => {
                    self.check_totals()?;
                    self.writer.end(&self.totals);
                    self.phase = Phase::Done;
                }
                Phase::Done | Phase::Failed => return Ok(()),
            }
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.writer.piece.len() >= self.limits.piece_bytes
    }

    fn small_row(&mut self, write: &TableWrite) {
        if let TableWrite::Put { table, key, value } = write {
            self.writer.small_row(*table, key, value);
            self.totals.small_rows += 1;
        }
    }

    fn only_stored(&mut self) -> Result<(), Error> {
        let reader = self.view.page.reader()?;
        for table in ONLY_STORED {
            for (key, value) in reader.table(table)? {
                self.small_row(&TableWrite::put(table, key, value));
            }
        }
        Ok(())
    }

    fn rows(&mut self) -> Result<(), Error> {
        // Checkpoints go on meanwhile: what they have stored need not be kept in memory.
        let stored = self.view.page.meta().revision;
        if stored >= self.view.revision {
            self.view.recent = RecentRows::default();
        }
        // Nor need the old nodes of the index, where it is not asked any more.
        if !self.removing || self.next.main > self.view.compacted {
            self.view.index = KeyIndex::default();
        }
        let stored = stored.min(self.view.revision);
        if self.next.main > stored {
            return self.recent_rows();
        }
        self.stored_rows(stored)?;
        // Only now: had rows been missing from what was read, this would know.
        match self.pin.holds() {
            true => Ok(()),
            false => Err(Error::Overtaken {
                index: self.header.index,
                compacted: self.header.compacted,
            }),
        }
    }

    fn stored_rows(&mut self, stored: i64) -> Result<(), Error> {
        let (mut rows, mut bytes) = (0, 0);
        let mut failure = None;
        let reader = self.view.page.reader()?;
        let from = self.next;
        // Past everything, unless the visitor says otherwise.
        self.next = Revision::new(stored + 1, 0);
        reader.scan_with_digests(from, &mut |id, digest, record| {
            if id.revision.main > stored {
                return ControlFlow::Break(());
            }
            if let Err(error) = self.row(id, digest, &record) {
                failure = Some(error);
                return ControlFlow::Break(());
            }
            rows += 1;
            bytes += record.len();
            if rows < self.limits.step_rows && bytes < self.limits.step_bytes && !self.is_full() {
                return ControlFlow::Continue(());
            }
            self.next = Revision::new(id.revision.main, id.revision.sub + 1);
            ControlFlow::Break(())
        })?;
        failure.map_or(Ok(()), Err)
    }

    fn recent_rows(&mut self) -> Result<(), Error> {
        let (recent, from) = (self.view.recent.clone(), self.next);
        let rows = recent
            .between(from.main - 1, self.view.revision)
            .skip_while(|row| row.revision < from);
        for row in rows {
            if self.is_full() {
                self.next = row.revision;
                return Ok(());
            }
            let id = id_of(row);
            self.row(id, page::record_digest(id, &row.record)?, &row.record)?;
        }
        self.next = Revision::new(self.view.revision + 1, 0);
        Ok(())
    }

    fn row(&mut self, id: RowId, digest: u64, record: &Bytes) -> Result<(), Error> {
        if self.removing && self.is_doomed(id, record)? {
            return Ok(());
        }
        self.writer.row(id, digest, record);
        self.totals.rows += 1;
        self.totals.digest = self.totals.digest.wrapping_add(digest);
        Ok(())
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
        let (stored, upto) = (self.meta.revision, self.view.revision);
        for row in self.view.recent.between(stored, upto) {
            rows += 1;
            digest = digest.wrapping_add(page::record_digest(id_of(row), &row.record)?);
        }
        Ok(Some((rows, digest)))
    }

    /// A row that is lost without a trace is not to be lost on other members, too.
    fn check_totals(&self) -> Result<(), Error> {
        let sent = (self.totals.rows, self.totals.digest);
        match self.expected {
            Some(expected) if expected != sent => {
                let what = format!(
                    "{} rows of digest {:016x} were read for a snapshot, {} of {:016x} are counted",
                    sent.0, sent.1, expected.0, expected.1
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use ferrite_api::pb::mvccpb::KeyValue;
    use ferrite_disk::Disk;
    use ferrite_disk::sim::SimDisk;
    use prost::Message;

    use super::*;
    use crate::page::{Filling, MetaUpdate, Options, RowWrite};

    const FILE: &str = "/db";

    /// A state of 100 rows.
    fn state(disk: &SimDisk) -> State {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let options = Options::default();
        let mut filling = Filling::create(&disk, Path::new(FILE), options, 1, 2).unwrap();
        for main in 2..102 {
            let record = KeyValue {
                key: format!("k{main}").into(),
                create_revision: main,
                mod_revision: main,
                version: 1,
                value: Bytes::from(vec![b'v'; 3000]),
                lease: 0,
            };
            let row = RowWrite {
                revision: Revision::new(main, 0),
                tombstone: false,
                record: record.encode_to_vec().into(),
            };
            filling.row(row).unwrap();
        }
        let meta = MetaUpdate {
            consistent_index: Some(200),
            term: Some(3),
            revision: Some(101),
            ..MetaUpdate::default()
        };
        State::restore(Arc::new(filling.finish(meta).unwrap())).unwrap()
    }

    fn failure(mut export: Export) -> String {
        loop {
            match export.next_piece() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("everything was sent"),
                Err(error) => return error.to_string(),
            }
        }
    }

    #[test]
    fn a_row_that_is_lost_is_noticed() {
        let mut export = state(&SimDisk::new(1)).export();
        export.next = Revision::new(4, 0);
        let error = failure(export);
        let text = "corrupt store: 98 rows of digest ";
        assert!(error.starts_with(text), "{error}");
    }

    #[test]
    fn another_thread_can_send_it() {
        fn goes_anywhere<T: Send + 'static>(_: T) {}
        goes_anywhere(state(&SimDisk::new(1)).export());
    }
}
