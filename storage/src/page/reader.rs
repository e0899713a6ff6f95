//! Reading rows and tables.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use ferrite_api::types::Revision;
use redb::{ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, TableError};

use super::batch::{RowId, Table};
use super::error::Error;
use super::file::Shared;
use super::guard::{self, Mode};
use super::meta::Meta;
use super::row::{self, Joiner, Key, REVISIONS, Sequence, Summary};
use super::tables::{self, ROWS};

/// Is shown key, value and checksum of small rows.
pub(super) type SmallVisitor<'v> = dyn FnMut(&[u8], &[u8], u32) + 'v;

/// Is shown the chunks of a record, and whether each is the last; may refuse one.
pub(super) type ChunkVisitor<'v> = dyn FnMut(&[u8], bool) -> Result<(), String> + 'v;

/// Bytes of rows that a scan gathers before it hands them out.
const SCAN_BYTES: usize = 64 << 10;

/// A consistent picture of the page file; see [`PageFile::reader`](super::PageFile::reader). It
/// keeps the file open.
///
/// All bytes that come out were checked against their checksum, and under the key that was asked
/// for. Any call may fail with [`Error::Corrupt`], [`Error::Io`] or [`Error::Poisoned`]; damage is
/// local, so other rows can still be read after [`Error::Corrupt`].
pub struct Reader {
    // In this order: a transaction ends before the database it belongs to.
    rows: ReadOnlyTable<Key, &'static [u8]>,
    transaction: ReadTransaction,
    shared: Arc<Shared>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl Reader {
    pub(super) fn new(shared: &Arc<Shared>) -> Result<Self, Error> {
        shared.usable()?;
        let opened = guard::run(Mode::Throw, REVISIONS, || {
            let transaction = shared.database().begin_read()?;
            let rows = transaction.open_table(ROWS)?;
            Ok((rows, transaction))
        });
        let (rows, transaction) = opened.map_err(|error| shared.fail_io(error))?;
        Ok(Self {
            rows,
            transaction,
            shared: shared.clone(),
        })
    }

    /// The meta record of this picture, read from the file.
    ///
    /// # Errors
    /// See [`Reader`].
    pub fn meta(&self) -> Result<Meta, Error> {
        self.guarded("meta", || tables::load_meta(&self.transaction))
    }

    /// The record of the change at `revision`.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is none of that kind; otherwise see [`Reader`].
    pub fn row(&self, revision: Revision, tombstone: bool) -> Result<Bytes, Error> {
        let id = RowId {
            revision,
            tombstone,
        };
        let (mut joiner, mut record) = (Joiner::default(), None);
        self.chunks(id, &mut |chunk, last| {
            record = joiner.push(chunk, last);
            Ok(())
        })?;
        record.ok_or(Error::Missing { revision })
    }

    /// Puts the record of the put at `revision` into `out`, which is as long as the caller knows
    /// the record to be.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is none; [`Error::Corrupt`] also when the record has another
    /// length; otherwise see [`Reader`]. `out` may be filled in part then.
    pub fn row_into(&self, revision: Revision, out: &mut [u8]) -> Result<(), Error> {
        let id = RowId {
            revision,
            tombstone: false,
        };
        self.chunks(id, &mut record_into(out))
    }

    /// Gives the chunks of a record to `take` in order, and whether each is the last. Errors name
    /// the row.
    fn chunks(&self, id: RowId, take: &mut ChunkVisitor<'_>) -> Result<(), Error> {
        let revision = id.revision;
        let mut key = row::key(id, 0).map_err(|_| Error::Missing { revision })?;
        let read = self.guarded(REVISIONS, || {
            for part in 0..=u16::MAX {
                key = row::with_part(key, part);
                let corrupt = |what| Error::corrupt(REVISIONS, what);
                let Some(value) = self.rows.get(key)? else {
                    return Err(match part {
                        0 => Error::Missing { revision },
                        _ => corrupt("the part is missing".to_owned()),
                    });
                };
                // The checksum covers the key, so this is also the check that redb found it and
                // not another one.
                let (_, chunk) = row::decode_value(&key, value.value()).map_err(corrupt)?;
                let last = row::is_last(chunk).map_err(corrupt)?;
                take(chunk, last).map_err(corrupt)?;
                if last {
                    return Ok(());
                }
            }
            Err(Error::corrupt(REVISIONS, "too many parts"))
        });
        read.map_err(|error| match error {
            Error::Corrupt { table, what } => {
                Error::corrupt(table, format!("row {}: {what}", row::describe(&key)))
            }
            error => error,
        })
    }

    /// Visits the rows at `from` and after it in ascending order, until `visit` breaks.
    ///
    /// # Errors
    /// See [`Reader`]. Rows before the damage were visited.
    pub fn scan(
        &self,
        from: Revision,
        visit: &mut dyn FnMut(Revision, bool, Bytes) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        // Before every row when `from` is, and nothing otherwise.
        let from = Revision::new(
            from.main.max(0),
            if from.main < 0 { 0 } else { from.sub.max(0) },
        );
        self.scan_rows(
            RowId {
                revision: from,
                tombstone: false,
            },
            &mut |row, record| visit(row.id.revision, row.id.tombstone, record),
        )
    }

    /// As [`Reader::scan`], with what each row adds to [`Meta::digest`]: it is known already, so
    /// computing it again ([`record_digest`](super::record_digest)) would double the work.
    ///
    /// # Errors
    /// As [`Reader::scan`].
    pub fn scan_with_digests(
        &self,
        from: Revision,
        visit: &mut dyn FnMut(RowId, u64, Bytes) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let first = RowId {
            revision: from,
            tombstone: false,
        };
        self.scan_rows(first, &mut |row, record| visit(row.id, row.digest, record))
    }

    /// As [`Reader::scan`], with what each row adds to the counters.
    pub(super) fn scan_rows(
        &self,
        from: RowId,
        visit: &mut dyn FnMut(&Summary, Bytes) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let first = row::key(from, 0)?;
        let mut range = self.guarded(REVISIONS, || Ok(self.rows.range(first..)?))?;
        let (mut sequence, mut joiner) = (Sequence::default(), Joiner::default());
        let mut gathered = Vec::new();
        let mut more = true;
        while more {
            // Callers' code runs outside the guard: its panics are none of redb's.
            let read = self.guarded(REVISIONS, || {
                let mut bytes = 0;
                while bytes < SCAN_BYTES {
                    let Some(entry) = range.next() else {
                        more = false;
                        return sequence
                            .end()
                            .map_err(|what| Error::corrupt(REVISIONS, what));
                    };
                    let (key, value) = entry?;
                    let (key, value) = (key.value(), value.value());
                    let corrupt = |what| {
                        Error::corrupt(REVISIONS, format!("{}: {what}", row::describe(&key)))
                    };
                    let (_, chunk) = row::decode_value(&key, value).map_err(corrupt)?;
                    let part = row::parse(&key).ok_or_else(|| corrupt("not a row".to_owned()))?;
                    let summary = sequence.step(part, chunk).map_err(corrupt)?;
                    bytes += value.len() + size_of::<(Summary, Bytes)>();
                    let record = joiner.push(chunk, summary.is_some());
                    gathered.extend(summary.zip(record));
                }
                Ok(())
            });
            for (row, record) in gathered.drain(..) {
                if visit(&row, record).is_break() {
                    return Ok(());
                }
            }
            read?;
        }
        Ok(())
    }

    /// All rows of a small table in the order of their keys.
    ///
    /// # Errors
    /// See [`Reader`].
    pub fn table(&self, table: Table) -> Result<Vec<(Bytes, Bytes)>, Error> {
        let mut rows = Vec::new();
        self.table_rows(table, &mut |key, value, _| {
            rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        })?;
        Ok(rows)
    }

    /// Visits the rows of a small table: key, value, checksum.
    pub(super) fn table_rows(
        &self,
        table: Table,
        visit: &mut SmallVisitor<'_>,
    ) -> Result<(), Error> {
        self.guarded(table.name(), || {
            let open = match self.transaction.open_table(tables::small(table)) {
                // Nothing was ever written to it. Were it lost, the digest would tell.
                Err(TableError::TableDoesNotExist(_)) => return Ok(()),
                open => open?,
            };
            for entry in open.iter()? {
                let (key, value) = entry?;
                let key = key.value();
                let (crc, value) = row::decode_value(key, value.value()).map_err(|what| {
                    Error::corrupt(table.name(), format!("{}: {what}", tables::describe(key)))
                })?;
                visit(key, value, crc);
            }
            Ok(())
        })
    }

    fn guarded<T>(
        &self,
        table: &'static str,
        call: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.shared.usable()?;
        guard::run(Mode::Throw, table, call).map_err(|error| self.shared.fail_io(error))
    }
}

/// Takes the chunks of a record that fills `out`.
pub(super) fn record_into(out: &mut [u8]) -> impl FnMut(&[u8], bool) -> Result<(), String> {
    let (expected, mut at) = (out.len(), 0);
    move |chunk, last| {
        let (from, to) = (at, at + chunk.len());
        at = to;
        match out.get_mut(from..to) {
            Some(place) if !last || to == expected => {
                place.copy_from_slice(chunk);
                Ok(())
            }
            _ => Err(format!(
                "a record of {expected} bytes is expected, {to} are there{}",
                if last { "" } else { " or more" }
            )),
        }
    }
}
