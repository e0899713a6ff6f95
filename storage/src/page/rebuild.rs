//! Rebuilding a page file: its rows, densely packed, in a new file.
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

use super::batch::{MetaUpdate, RowWrite, Table};
use super::error::Error;
use super::file::{Options, PageFile, Sizes};
use super::fill::{self, Filling};
use super::meta::Meta;
use super::reader::Reader;
use super::tables::META_NAME;

/// What a rebuild has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rebuilt {
    /// The sizes of the old file.
    pub before: Sizes,
    /// The sizes of the new one.
    pub after: Sizes,
}

/// What became of the rebuild of a file that is in use.
#[derive(Debug)]
pub enum Outcome {
    /// The new file has taken the place of the old one.
    Replaced(PageFile, Rebuilt),
    /// The old file is where it was, and works on.
    Kept(Error),
    /// Either file may be found after a crash. They have the same content, as long as nothing is
    /// committed to the old one: its user must not go on.
    Unknown(Error),
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
    match rebuild_in_use(&old, path, progress) {
        Outcome::Replaced(_, rebuilt) => Ok(rebuilt),
        Outcome::Kept(error) | Outcome::Unknown(error) => Err(error),
    }
}

/// Rebuilds the open page file at `path`, which is read meanwhile, and afterwards, too, by whoever
/// still has it. Nothing may be committed to it any more: what would be lost is.
pub fn rebuild_in_use(old: &PageFile, path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Outcome {
    let (disk, options) = old.origin();
    let fresh = fresh_path(path);
    let copied = has_room(disk, old, path, options)
        .and_then(|()| remove_remains(disk, path))
        .and_then(|()| copy(disk, old, &fresh, options, progress));
    let new = match copied {
        Ok(new) => new,
        Err(error) => {
            // Best effort: the next attempt removes it too, and the first error is the answer.
            let _ = remove_remains(disk, path);
            return Outcome::Kept(error);
        }
    };
    let directory = path.parent().unwrap_or(Path::new(""));
    let renamed = disk
        .rename(&fresh, path)
        .map_err(Error::io("rename the new file"))
        .and_then(|()| {
            disk.sync_dir(directory)
                .map_err(Error::io("sync the directory"))
        });
    if let Err(error) = renamed {
        return Outcome::Unknown(error);
    }
    let rebuilt = Rebuilt {
        before: old.sizes(),
        after: new.sizes(),
    };
    Outcome::Replaced(new, rebuilt)
}

/// Looks before hours of work are done in vain: the content, and some for the tree around it.
fn has_room(
    disk: &Arc<dyn Disk>,
    old: &PageFile,
    path: &Path,
    options: &Options,
) -> Result<(), Error> {
    let content = old.sizes().in_use;
    let needed = content + content / 8 + options.headroom_bytes;
    let directory = path.parent().unwrap_or(Path::new(""));
    let free = disk
        .free_bytes(directory)
        .map_err(Error::io("ask for the free space"))?;
    match free < needed {
        true => Err(Error::NoSpace {
            needed,
            reserved: 0,
        }),
        false => Ok(()),
    }
}

/// Removes what an unfinished rebuild of the file at `path` has left, if it has.
///
/// # Errors
/// [`Error::Io`].
pub fn remove_remains(disk: &Arc<dyn Disk>, path: &Path) -> Result<(), Error> {
    fill::remove_unfinished(disk, &fresh_path(path))
}

fn fresh_path(path: &Path) -> PathBuf {
    fill::with_ending(path, ".rebuild")
}

/// Makes a file at `fresh` with the content of `old`, durable.
fn copy(
    disk: &Arc<dyn Disk>,
    old: &PageFile,
    fresh: &Path,
    options: &Options,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<PageFile, Error> {
    let meta = old.meta();
    let (cluster_id, member_id) = (meta.cluster_id, meta.member_id);
    let mut new = Filling::create(disk, fresh, options.clone(), cluster_id, member_id)?;
    let reader = old.reader()?;
    copy_rows(&reader, &mut new, &mut |done| progress(done, meta.rows))?;
    for table in Table::ALL {
        for (key, value) in reader.table(table)? {
            new.small_row(table, key, value)?;
        }
    }
    drop(reader);
    let new = new.finish(everything(&meta))?;
    progress(meta.rows, meta.rows);
    let found = new.meta();
    if found != meta {
        let what = format!("{meta:?} stored, {found:?} counted");
        return Err(Error::corrupt(META_NAME, what));
    }
    assert!(
        old.meta() == meta,
        "a commit to a file that is being rebuilt"
    );
    Ok(new)
}

fn copy_rows(
    reader: &Reader,
    new: &mut Filling,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Error> {
    let (mut done, mut failure) = (0, None);
    reader.scan(Revision::default(), &mut |revision, tombstone, record| {
        let row = RowWrite {
            revision,
            tombstone,
            record,
        };
        if let Err(error) = new.row(row) {
            failure = Some(error);
            return ControlFlow::Break(());
        }
        if new.written() > done {
            done = new.written();
            progress(done);
        }
        ControlFlow::Continue(())
    })?;
    failure.map_or(Ok(()), Err)
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
