//! Verification of everything in the file, while it is in use.
//!
//! Rows are read in pieces, each in a read transaction of its own, with commits held off while a
//! piece is read (milliseconds). Between pieces commits go on; they tell the [`Scrub`] what they
//! change among the rows that it has seen already, so that its counters stay those of the present
//! state, and can be compared with the meta record at the end.

use std::ops::ControlFlow;

use ferrite_api::types::Revision;

use super::batch::{RowId, Table};
use super::error::Error;
use super::file::{PageFile, Shared};
use super::reader::Reader;
use super::row::{self, REVISIONS, Summary};
use super::tables::META_NAME;

/// Rows, and bytes of them, that are read while commits wait.
const PIECE_ROWS: u64 = 2048;
const PIECE_BYTES: u64 = 2 << 20;

/// After so many damaged places the rest does not matter.
const MAX_DAMAGE: usize = 16;

/// What [`PageFile::verify`] found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VerifyReport {
    /// Rows that were read and are intact.
    pub rows: u64,
    /// What is not as it should be, at most 16 entries; empty means that nothing was found.
    pub damage: Vec<Damage>,
    /// Whether everything was looked at: not so when the caller stopped it, after too much damage,
    /// and where the neighbourhood of damage could not be read.
    pub complete: bool,
}

/// One thing that is damaged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The table.
    pub table: &'static str,
    /// The key or the position, and both sides of the contradiction.
    pub what: String,
}

/// The counters over the rows up to and with `seen`, as of now.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    seen: Option<RowId>,
    rows: u64,
    digest: u64,
}

impl Scrub {
    fn has_seen(&self, row: &Summary) -> bool {
        self.seen.is_some_and(|seen| row.id <= seen)
    }

    /// A commit adds a row.
    pub(super) fn added(&mut self, row: &Summary) {
        if self.has_seen(row) {
            self.rows = self.rows.wrapping_add(1);
            self.digest = self.digest.wrapping_add(row.digest);
        }
    }

    /// A commit removes a row.
    pub(super) fn removed(&mut self, row: &Summary) {
        if self.has_seen(row) {
            self.rows = self.rows.wrapping_sub(1);
            self.digest = self.digest.wrapping_sub(row.digest);
        }
    }

    fn visit(&mut self, row: &Summary) {
        self.seen = Some(row.id);
        self.added(row);
    }
}

impl PageFile {
    /// Reads everything there is and compares it with its checksums, and with the counters and
    /// digests in the meta record. May run beside commits and readers, for as long as it takes;
    /// `progress` gets the number of rows read every few milliseconds and stops it with `Break`.
    ///
    /// Pages that redb has in its cache were checked when they came from the disk and are not
    /// fetched again.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Poisoned`]. Damage is not an error but in the report.
    pub fn verify(
        &self,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<VerifyReport, Error> {
        let shared = self.shared();
        let _one_at_a_time = shared.verify.lock();
        *shared.scrub.lock() = Some(Scrub::default());
        let mut report = VerifyReport {
            complete: true,
            ..VerifyReport::default()
        };
        let result = verify(shared, progress, &mut report);
        *shared.scrub.lock() = None;
        result.map(|()| report)
    }
}

fn verify(
    shared: &std::sync::Arc<Shared>,
    progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    report: &mut VerifyReport,
) -> Result<(), Error> {
    let mut from = first_of(Revision::default());
    loop {
        {
            let _no_commits = shared.commit.lock();
            let reader = match Reader::new(shared) {
                Err(Error::Corrupt { table, what }) => {
                    report.damage.push(Damage { table, what });
                    report.complete = false;
                    return Ok(());
                }
                reader => reader?,
            };
            match piece(shared, &reader, from, report) {
                Ok(ControlFlow::Continue(next)) => from = next,
                Ok(ControlFlow::Break(())) => return finish(shared, &reader, report),
                Err(Error::Corrupt { table, what }) => {
                    report.damage.push(Damage { table, what });
                    report.complete = false;
                    let last = shared.scrub.lock().as_ref().and_then(|scrub| scrub.seen);
                    let after = last.map_or(from, |last| last.max(from));
                    match readable_after(shared, &reader, after.revision)? {
                        Some(next) if report.damage.len() < MAX_DAMAGE => from = next,
                        _ => return finish(shared, &reader, report),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        if progress(report.rows).is_break() {
            report.complete = false;
            return Ok(());
        }
    }
}

/// Reads the next rows; where to go on, or `Break` after the last row.
fn piece(
    shared: &Shared,
    reader: &Reader,
    from: RowId,
    report: &mut VerifyReport,
) -> Result<ControlFlow<(), RowId>, Error> {
    let mut scrub = shared.scrub.lock();
    let scrub = scrub.get_or_insert_default();
    let (mut rows, mut bytes) = (0, 0);
    let mut next = None;
    reader.scan_rows(from, &mut |row, _| {
        if rows >= PIECE_ROWS || bytes >= PIECE_BYTES {
            next = Some(row.id);
            return ControlFlow::Break(());
        }
        scrub.visit(row);
        (rows, bytes) = (rows + 1, bytes + row.stored_bytes);
        report.rows += 1;
        ControlFlow::Continue(())
    })?;
    Ok(next.map_or(ControlFlow::Break(()), ControlFlow::Continue))
}

/// The first revision after damage from which rows can be read again, looked for in growing steps.
fn readable_after(
    shared: &Shared,
    reader: &Reader,
    last: Revision,
) -> Result<Option<RowId>, Error> {
    let end = shared.meta.read().revision;
    let mut step = 1;
    while let Some(main) = last.main.checked_add(step).filter(|main| *main <= end) {
        let from = first_of(Revision::new(main, 0));
        match reader.scan_rows(from, &mut |_, _| ControlFlow::Break(())) {
            Ok(()) => return Ok(Some(from)),
            Err(Error::Corrupt { .. }) => step *= 2,
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn first_of(revision: Revision) -> RowId {
    RowId {
        revision,
        tombstone: false,
    }
}

/// Reads the small tables and compares all counters with the meta record.
fn finish(shared: &Shared, reader: &Reader, report: &mut VerifyReport) -> Result<(), Error> {
    let meta = shared.meta.read().clone();
    let mut note = |result: Result<(), Error>| match result {
        Err(Error::Corrupt { table, what }) => {
            report.damage.push(Damage { table, what });
            report.complete = false;
            Ok(())
        }
        result => result,
    };
    let (mut rows, mut digest, mut readable) = (0, 0u64, true);
    for table in Table::ALL {
        let result = reader.table_rows(table, &mut |_, _, crc| {
            rows += 1;
            digest = digest.wrapping_add(row::small_digest(table.name(), crc));
        });
        readable &= result.is_ok();
        note(result)?;
    }
    note(reader.meta().and_then(|stored| match stored == meta {
        true => Ok(()),
        false => Err(Error::corrupt(
            META_NAME,
            format!("{stored:?} stored, {meta:?} expected"),
        )),
    }))?;
    if readable {
        note(compare(
            "small tables",
            (rows, digest),
            (meta.table_rows, meta.table_digest),
        ))?;
    }
    // Where rows could not be read they are missing from the counters too.
    if report.damage.iter().all(|damage| damage.table != REVISIONS) {
        let scrub = shared.scrub.lock();
        let found = scrub
            .as_ref()
            .map_or((0, 0), |scrub| (scrub.rows, scrub.digest));
        if let Err(Error::Corrupt { table, what }) =
            compare(REVISIONS, found, (meta.rows, meta.digest))
        {
            report.damage.push(Damage { table, what });
        }
    }
    Ok(())
}

fn compare(table: &'static str, found: (u64, u64), expected: (u64, u64)) -> Result<(), Error> {
    if found == expected {
        return Ok(());
    }
    let what = format!(
        "{} rows of digest {:016x} found, {} of {:016x} expected",
        found.0, found.1, expected.0, expected.1
    );
    Err(Error::corrupt(table, what))
}
