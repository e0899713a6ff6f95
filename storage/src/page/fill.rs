//! Filling a new page file with the rows of another one, a bounded batch at a time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use ferrite_disk::Disk;

use super::batch::{Batch, Initial, MetaUpdate, RowId, RowWrite, Table, TableWrite};
use super::error::Error;
use super::file::{Options, PageFile};

/// Rows, and bytes of them, that are committed at once. Few, because others wait while the disk takes
/// them; many, because each commit writes some pages again.
const BATCH_ROWS: usize = 20_000;
const BATCH_BYTES: usize = 2 << 20;

/// Small rows that are committed at once: each may be anywhere in its table, so a commit has to
/// reserve far more for them.
const BATCH_SMALL_ROWS: usize = 1_000;

/// A page file being filled. What is in it counts only once [`Filling::finish`] has written the meta
/// record: until then it is at index 0, and what it holds need not survive a crash.
#[derive(Debug)]
pub struct Filling {
    file: PageFile,
    batch: Batch,
    /// Bytes in `batch`.
    bytes: usize,
    /// Rows that are in the file.
    written: u64,
}

impl Filling {
    /// Creates the file, as [`PageFile::create`] does.
    ///
    /// # Errors
    /// As [`PageFile::create`].
    pub fn create(
        disk: &Arc<dyn Disk>,
        path: &Path,
        options: Options,
        cluster_id: u64,
        member_id: u64,
    ) -> Result<Self, Error> {
        let initial = Initial {
            cluster_id,
            member_id,
            ..Initial::default()
        };
        let file = PageFile::create(disk, path, options, &initial)?;
        file.fill(true)?;
        Ok(Self {
            file,
            batch: Batch::default(),
            bytes: 0,
            written: 0,
        })
    }

    /// Adds a row; they come in ascending order.
    ///
    /// # Errors
    /// As [`PageFile::commit`].
    pub fn row(&mut self, row: RowWrite) -> Result<(), Error> {
        self.bytes += row.record.len();
        self.batch.rows.push(row);
        self.commit_if_full()
    }

    /// Adds a row of a small table.
    ///
    /// # Errors
    /// As [`PageFile::commit`].
    pub fn small_row(&mut self, table: Table, key: Bytes, value: Bytes) -> Result<(), Error> {
        self.bytes += key.len() + value.len();
        self.batch.tables.push(TableWrite::put(table, key, value));
        self.commit_if_full()
    }

    /// Removes rows that were added before; ones that are not there are fine.
    ///
    /// # Errors
    /// As [`PageFile::commit`].
    pub fn remove(&mut self, mut doomed: Vec<RowId>) -> Result<(), Error> {
        doomed.sort_unstable();
        self.batch.remove = doomed;
        self.flush()
    }

    /// Writes what is gathered.
    ///
    /// # Errors
    /// As [`PageFile::commit`].
    pub fn flush(&mut self) -> Result<(), Error> {
        match self.batch == Batch::default() {
            true => Ok(()),
            false => self.commit(),
        }
    }

    /// Rows that have been written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Writes what is left, and the meta record. The file is whole and durable then.
    ///
    /// # Errors
    /// As [`PageFile::commit`].
    pub fn finish(mut self, meta: MetaUpdate) -> Result<PageFile, Error> {
        self.batch.meta = meta;
        self.file.fill(false)?;
        self.commit()?;
        Ok(self.file)
    }

    fn commit_if_full(&mut self) -> Result<(), Error> {
        let full = self.batch.rows.len() >= BATCH_ROWS
            || self.batch.tables.len() >= BATCH_SMALL_ROWS
            || self.bytes >= BATCH_BYTES;
        if full { self.commit() } else { Ok(()) }
    }

    fn commit(&mut self) -> Result<(), Error> {
        self.file.commit(&self.batch)?;
        self.written += self.batch.rows.len() as u64;
        self.batch = Batch::default();
        self.bytes = 0;
        Ok(())
    }
}

/// The path of a file beside another one.
pub(crate) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

/// Removes a file that was to be filled, and what creating it has left, if they are there.
pub(crate) fn remove_unfinished(disk: &Arc<dyn Disk>, path: &Path) -> Result<(), Error> {
    for path in [&with_ending(path, ".tmp"), path] {
        let there = disk
            .exists(path)
            .map_err(Error::io("look for an unfinished file"))?;
        if there {
            let file = disk.open(path);
            disk.remove(path)
                .map_err(Error::io("remove an unfinished file"))?;
            if let Ok(file) = file {
                file.free_gently();
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ferrite_api::types::Revision;
    use ferrite_disk::sim::SimDisk;

    use super::*;

    #[test]
    fn what_is_held_in_memory_is_bounded() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let path = Path::new("/db");
        let options = Options::default();
        let mut filling = Filling::create(&disk, path, options, 1, 2).unwrap();
        let mut held = [0; 3];
        for main in 2..3000 {
            let record = Bytes::from(vec![0; 8 << 10]);
            let row = RowWrite {
                revision: Revision::new(main, 0),
                tombstone: false,
                record,
            };
            filling.row(row).unwrap();
            let key = Bytes::copy_from_slice(&main.to_be_bytes());
            filling.small_row(Table::Leases, key, Bytes::new()).unwrap();
            let batch = &filling.batch;
            let now = [batch.rows.len(), batch.tables.len(), filling.bytes];
            held = std::array::from_fn(|at| held[at].max(now[at]));
        }
        let [rows, small, bytes] = held;
        assert!(rows < BATCH_ROWS && small < BATCH_SMALL_ROWS && bytes < BATCH_BYTES);
        assert!(filling.written() >= 2_000);
        let meta = filling.finish(MetaUpdate::default()).unwrap().meta();
        assert_eq!((meta.rows, meta.table_rows), (2_998, 2_998));
    }
}
