//! Rebuilding a page file that nobody uses: its rows, densely packed, in a new file.
//!
//! The new file is made and made durable under another name, compared with the old one, and then
//! renamed over it. So at every instant there is one whole file of the right name, with the same
//! content; a crash leaves at most the beginnings of a new file, which the next attempt, and the
//! next start of the member, remove.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferrite_api::types::Revision;
use ferrite_disk::Disk;

use super::batch::{Batch, Initial, MetaUpdate, RowWrite, Table, TableWrite};
use super::error::Error;
use super::file::{Options, PageFile, Sizes};
use super::meta::Meta;
use super::tables::META_NAME;

/// Rows, and bytes of them, that are committed at once.
const BATCH_ROWS: usize = 20_000;
const BATCH_BYTES: usize = 8 << 20;

/// What a rebuild has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rebuilt {
    /// The sizes of the old file.
    pub before: Sizes,
    /// The sizes of the new one.
    pub after: Sizes,
}

/// Rebuilds the page file at `path`, which must not be open. `progress` gets the number of rows
/// written so far and of all rows.
///
/// # Errors
/// Whatever is wrong with the old file; [`Error::NoSpace`] if the disk has no room for both. The
/// old file stays as it was, but for what opening it repairs.
pub fn rebuild(
    disk: &Arc<dyn Disk>,
    path: &Path,
    options: &Options,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Rebuilt, Error> {
    remove_remains(disk, path)?;
    let old = PageFile::open(disk, path, options.clone())?;
    let fresh = fresh_path(path);
    let rebuilt = copy(disk, &old, &fresh, options, progress).map(|after| Rebuilt {
        before: old.sizes(),
        after,
    });
    drop(old);
    let rebuilt = match rebuilt {
        Ok(rebuilt) => rebuilt,
        Err(error) => {
            // Best effort: the next attempt removes it too, and the first error is the answer.
            let _ = remove_remains(disk, path);
            return Err(error);
        }
    };
    disk.rename(&fresh, path)
        .map_err(Error::io("rename the new file"))?;
    disk.sync_dir(path.parent().unwrap_or(Path::new("")))
        .map_err(Error::io("sync the directory"))?;
    Ok(rebuilt)
}

/// Removes what an unfinished rebuild of the file at `path` has left, if it has.
///
/// # Errors
/// [`Error::Io`].
pub fn remove_remains(disk: &Arc<dyn Disk>, path: &Path) -> Result<(), Error> {
    let fresh = fresh_path(path);
    // The second one is what creating the first one leaves.
    for path in [with_ending(&fresh, ".tmp"), fresh] {
        let there = disk
            .exists(&path)
            .map_err(Error::io("look for the remains of a rebuild"))?;
        if there {
            disk.remove(&path)
                .map_err(Error::io("remove the remains of a rebuild"))?;
        }
    }
    Ok(())
}

fn fresh_path(path: &Path) -> PathBuf {
    with_ending(path, ".rebuild")
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

/// Makes a file at `fresh` with the content of `old`, durable and closed. Its sizes.
fn copy(
    disk: &Arc<dyn Disk>,
    old: &PageFile,
    fresh: &Path,
    options: &Options,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Sizes, Error> {
    let meta = old.meta();
    let initial = Initial {
        cluster_id: meta.cluster_id,
        member_id: meta.member_id,
        ..Initial::default()
    };
    let new = PageFile::create(disk, fresh, options.clone(), &initial)?;
    copy_rows(old, &new, &mut |done| progress(done, meta.rows))?;
    let reader = old.reader()?;
    let mut tables = Vec::new();
    for table in Table::ALL {
        let rows = reader.table(table)?.into_iter();
        tables.extend(rows.map(|(key, value)| TableWrite::put(table, key, value)));
    }
    let batch = Batch {
        tables,
        meta: everything(&meta),
        ..Batch::default()
    };
    let found = new.commit(&batch)?;
    if found != meta {
        let what = format!("{meta:?} stored, {found:?} counted");
        return Err(Error::corrupt(META_NAME, what));
    }
    Ok(new.sizes())
}

fn copy_rows(old: &PageFile, new: &PageFile, progress: &mut dyn FnMut(u64)) -> Result<(), Error> {
    let mut batch = Batch::default();
    let (mut bytes, mut done) = (0, 0);
    let mut failure = None;
    let mut write = |batch: &mut Batch| {
        done += batch.rows.len() as u64;
        new.commit(batch)?;
        batch.rows.clear();
        progress(done);
        Ok(())
    };
    let reader = old.reader()?;
    reader.scan(Revision::default(), &mut |revision, tombstone, record| {
        bytes += record.len();
        batch.rows.push(RowWrite {
            revision,
            tombstone,
            record,
        });
        if batch.rows.len() < BATCH_ROWS && bytes < BATCH_BYTES {
            return ControlFlow::Continue(());
        }
        bytes = 0;
        match write(&mut batch) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    match failure {
        Some(error) => Err(error),
        None => write(&mut batch),
    }
}

/// The update that makes the meta record of a new file the same as `meta`, but for what the file
/// counts itself.
fn everything(meta: &Meta) -> MetaUpdate {
    MetaUpdate {
        consistent_index: Some(meta.consistent_index),
        term: Some(meta.term),
        revision: Some(meta.revision),
        scheduled_compact: Some(meta.scheduled_compact),
        finished_compact: Some(meta.finished_compact),
        storage_version: Some(meta.storage_version.clone()),
        conf_state: Some(meta.conf_state.clone()),
    }
}
