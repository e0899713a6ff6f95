//! The write transaction of a commit.

use std::ops::Bound;

use bytes::Bytes;
use redb::{CursorError, Database, Durability, WriteTransaction};

use super::batch::{Batch, RowId, RowWrite, Table, TableWrite};
use super::error::Error;
use super::meta::Meta;
use super::row::{self, Key, MAX_RECORD_BYTES, Part, REVISIONS, Sequence, Summary};
use super::tables::{self, META, META_KEY, ROWS};
use super::verify::Scrub;
use crate::courtesy::Courtesy;

/// Doomed rows whose main revisions are at most this far apart are removed in one pass over the
/// range between them. A pass over 4 KiB pages of small rows costs 0.1 us for each row it leaves; a
/// removal by key saves that and costs some us more. They cost the same at about this distance.
const RANGE_GAP: i64 = 12;

type RowTable<'t> = redb::Table<'t, Key, &'static [u8]>;
type SmallTable<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

/// Checks what callers promise about a batch, before anything is changed.
pub(super) fn check(batch: &Batch) -> Result<(), Error> {
    for row in &batch.rows {
        row::key(id(row), 0)?;
        if row.record.len() > MAX_RECORD_BYTES {
            let (at, len) = (row.revision, row.record.len());
            let what = format!("record at {at} has {len} bytes, {MAX_RECORD_BYTES} fit");
            return Err(Error::Invalid { what });
        }
    }
    for doomed in &batch.remove {
        row::key(*doomed, 0)?;
    }
    let ascending = |ids: &mut dyn Iterator<Item = RowId>| ids.is_sorted_by(|a, b| a < b);
    if !ascending(&mut batch.rows.iter().map(id)) {
        return Err(Error::Invalid {
            what: "rows are not in ascending order".to_owned(),
        });
    }
    if !ascending(&mut batch.remove.iter().copied()) {
        return Err(Error::Invalid {
            what: "removals are not in ascending order".to_owned(),
        });
    }
    Ok(())
}

/// Writes `batch` and the meta record that results from `meta`, durably. `scrub` is kept up to date
/// with what changes in the rows that it has seen. With `courtesy`, clients go first: not what they wait
/// for may have it.
pub(super) fn transact(
    database: &Database,
    batch: &Batch,
    meta: Meta,
    scrub: Option<&mut Scrub>,
    courtesy: Option<Courtesy>,
) -> Result<Meta, Error> {
    let mut transaction = database.begin_write()?;
    transaction
        .set_durability(Durability::Immediate)
        .map_err(redb::Error::from)?;
    // Records the allocator state in every commit, so that opening after a crash needs no walk over
    // the file; and makes commits two-phase, so that the newest one is never in doubt.
    transaction.set_quick_repair(true);
    let mut change = Change {
        meta,
        value: Vec::new(),
        scrub,
        courtesy,
    };
    match change.apply(&transaction, batch) {
        Ok(()) => {
            transaction.commit()?;
            Ok(change.meta)
        }
        Err(error) => {
            // Undoing it fails too when the disk does; the first error is the one that tells.
            let _ = transaction.abort();
            Err(error)
        }
    }
}

/// A transaction in the making.
struct Change<'s> {
    /// The meta record with the counters as of now.
    meta: Meta,
    /// Scratch space for values.
    value: Vec<u8>,
    scrub: Option<&'s mut Scrub>,
    courtesy: Option<Courtesy>,
}

impl Change<'_> {
    fn apply(&mut self, transaction: &WriteTransaction, batch: &Batch) -> Result<(), Error> {
        {
            let mut rows = transaction.open_table(ROWS)?;
            self.insert(&mut rows, &batch.rows)?;
            self.remove(&mut rows, &batch.remove)?;
        }
        self.write_tables(transaction, &batch.tables)?;
        self.meta.update(&batch.meta);
        let mut meta = transaction.open_table(META)?;
        row::encode_value(META_KEY, &self.meta.encode(), &mut self.value);
        meta.insert(META_KEY, self.value.as_slice())?;
        Ok(())
    }

    fn insert(&mut self, table: &mut RowTable<'_>, rows: &[RowWrite]) -> Result<(), Error> {
        let Some(first) = rows.first() else {
            return Ok(());
        };
        let first = row::key(id(first), 0)?;
        // Checkpoints append. A cursor at the end does that at a third of the cost of inserts.
        let mut end = table.lower_bound_mut(Bound::Included(first))?;
        if end.peek_next()?.is_none() {
            for row in rows {
                self.insert_row(row, |key, value| {
                    end.insert_before(*key, value)
                        .map(|()| false)
                        .map_err(|error| match error {
                            CursorError::Storage(error) => error.into(),
                            error => Error::corrupt(REVISIONS, error.to_string()),
                        })
                })?;
            }
            return Ok(end.close()?);
        }
        drop(end);
        for row in rows {
            self.insert_row(row, |key, value| match table.insert(*key, value)? {
                None => Ok(false),
                Some(old) if old.value() == value => Ok(true),
                Some(_) => {
                    let what = format!("{}: written before otherwise", row::describe(key));
                    Err(Error::corrupt(REVISIONS, what))
                }
            })?;
        }
        Ok(())
    }

    /// Hands the parts of a row to `insert`, which says whether the same one was there before.
    fn insert_row(
        &mut self,
        row: &RowWrite,
        mut insert: impl FnMut(&Key, &[u8]) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        if let Some(courtesy) = &mut self.courtesy {
            courtesy.worked();
        }
        let id = id(row);
        let first = row::key(id, 0)?;
        let corrupt =
            |what| Error::corrupt(REVISIONS, format!("{}: {what}", row::describe(&first)));
        let mut sequence = Sequence::default();
        let mut there = None;
        for (part, chunk) in (0..=u16::MAX).zip(row::chunks(&row.record)) {
            let key = row::with_part(first, part);
            row::encode_value(&key, chunk, &mut self.value);
            let was_there = insert(&key, &self.value)?;
            if *there.get_or_insert(was_there) != was_there {
                return Err(corrupt("written before with another length".to_owned()));
            }
            let summary = sequence.step(Part { id, part }, chunk).map_err(corrupt)?;
            if let (Some(summary), false) = (summary, was_there) {
                self.row_added(&summary);
            }
        }
        Ok(())
    }

    fn remove(&mut self, table: &mut RowTable<'_>, doomed: &[RowId]) -> Result<(), Error> {
        let near = |a: &RowId, b: &RowId| b.revision.main - a.revision.main <= RANGE_GAP;
        for run in doomed.chunk_by(near) {
            match run {
                [single] => self.remove_one(table, *single)?,
                run => self.remove_run(table, run)?,
            }
        }
        Ok(())
    }

    fn remove_one(&mut self, table: &mut RowTable<'_>, doomed: RowId) -> Result<(), Error> {
        let first = row::key(doomed, 0)?;
        let mut sequence = Sequence::default();
        for part in 0..=u16::MAX {
            let key = row::with_part(first, part);
            let Some(old) = table.remove(key)? else { break };
            if self.part_removed(&mut sequence, &key, old.value())? {
                break;
            }
        }
        sequence
            .end()
            .map_err(|what| Error::corrupt(REVISIONS, what))
    }

    /// Removes rows that lie close together in one pass over the range that holds them.
    fn remove_run(&mut self, table: &mut RowTable<'_>, run: &[RowId]) -> Result<(), Error> {
        let [first, .., last] = run else {
            return Ok(());
        };
        let range = row::key(*first, 0)?..=row::key(*last, u16::MAX)?;
        let mut doomed = run.iter().peekable();
        let mut sequence = Sequence::default();
        let mut result = Ok(());
        table.retain_in::<Key, _>(range, |key, value| {
            let Some(part) = row::parse(&key) else {
                let what = format!("{}: not a row", row::describe(&key));
                result = Err(Error::corrupt(REVISIONS, what));
                return true;
            };
            while doomed.next_if(|doomed| **doomed < part.id).is_some() {}
            if result.is_err() || doomed.peek() != Some(&&part.id) {
                return true;
            }
            match self.part_removed(&mut sequence, &key, value) {
                Ok(_) => false,
                Err(error) => {
                    result = Err(error);
                    true
                }
            }
        })?;
        result?;
        sequence
            .end()
            .map_err(|what| Error::corrupt(REVISIONS, what))
    }

    fn row_added(&mut self, row: &Summary) {
        self.meta.rows += 1;
        self.meta.digest = self.meta.digest.wrapping_add(row.digest);
        self.meta.live_bytes += row.stored_bytes;
        if let Some(scrub) = &mut self.scrub {
            scrub.added(row);
        }
    }

    /// Takes note of a part that was removed, after checking that it is what was written. Whether
    /// it was the last of its row.
    fn part_removed(
        &mut self,
        sequence: &mut Sequence,
        key: &Key,
        value: &[u8],
    ) -> Result<bool, Error> {
        let corrupt = |what| Error::corrupt(REVISIONS, format!("{}: {what}", row::describe(key)));
        let (_, chunk) = row::decode_value(key, value).map_err(corrupt)?;
        let part = row::parse(key).ok_or_else(|| corrupt("not a row".to_owned()))?;
        let Some(row) = sequence.step(part, chunk).map_err(corrupt)? else {
            return Ok(false);
        };
        let meta = &mut self.meta;
        // Wrapping: should the counters be wrong, verification says so, not a panic here.
        meta.rows = meta.rows.wrapping_sub(1);
        meta.digest = meta.digest.wrapping_sub(row.digest);
        meta.live_bytes = meta.live_bytes.wrapping_sub(row.stored_bytes);
        if let Some(scrub) = &mut self.scrub {
            scrub.removed(&row);
        }
        Ok(true)
    }

    fn write_tables(
        &mut self,
        transaction: &WriteTransaction,
        writes: &[TableWrite],
    ) -> Result<(), Error> {
        // Opening a table costs more than a write to it: writes to the same one share it.
        for writes in writes.chunk_by(|a, b| a.table() == b.table()) {
            let Some(table) = writes.first().map(TableWrite::table) else {
                continue;
            };
            let mut open = transaction.open_table(tables::small(table))?;
            for write in writes {
                match write {
                    TableWrite::Put { key, value, .. } => {
                        self.put(table, &mut open, key, value)?;
                    }
                    TableWrite::Delete { key, .. } => {
                        let old = open.remove(&key[..])?;
                        if let Some(old) = old {
                            self.small_removed(table, key, old.value())?;
                        }
                    }
                    TableWrite::Clear { .. } => self.clear(table, &mut open)?,
                }
            }
        }
        Ok(())
    }

    fn put(
        &mut self,
        table: Table,
        open: &mut SmallTable<'_>,
        key: &Bytes,
        value: &Bytes,
    ) -> Result<(), Error> {
        let crc = row::encode_value(key, value, &mut self.value);
        let old = open.insert(&key[..], self.value.as_slice())?;
        if let Some(old) = old {
            self.small_removed(table, key, old.value())?;
        }
        let meta = &mut self.meta;
        meta.table_rows += 1;
        meta.table_digest = meta
            .table_digest
            .wrapping_add(row::small_digest(table.name(), crc));
        meta.live_bytes += (key.len() + self.value.len()) as u64;
        Ok(())
    }

    fn clear(&mut self, table: Table, open: &mut SmallTable<'_>) -> Result<(), Error> {
        let mut result = Ok(());
        open.retain(|key, value| {
            if result.is_ok() {
                result = self.small_removed(table, key, value);
            }
            result.is_err()
        })?;
        result
    }

    fn small_removed(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let (crc, _) = row::decode_value(key, value).map_err(|what| {
            Error::corrupt(table.name(), format!("{}: {what}", tables::describe(key)))
        })?;
        let meta = &mut self.meta;
        meta.table_rows = meta.table_rows.wrapping_sub(1);
        meta.table_digest = meta
            .table_digest
            .wrapping_sub(row::small_digest(table.name(), crc));
        meta.live_bytes = meta
            .live_bytes
            .wrapping_sub((key.len() + value.len()) as u64);
        Ok(())
    }
}

fn id(row: &RowWrite) -> RowId {
    RowId {
        revision: row.revision,
        tombstone: row.tombstone,
    }
}
