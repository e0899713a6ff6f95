//! A received page file takes the place of the one in use, or goes, as the log decides. See the
//! [module](super).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferrite_disk::Disk;

use super::Error;
use crate::page::{self, Options, PageFile};

/// A page file being received.
pub(super) fn receive_path(page_path: &Path) -> PathBuf {
    page::with_ending(page_path, ".receive")
}

/// A page file that was received: complete, verified and durable.
pub(super) fn install_path(page_path: &Path) -> PathBuf {
    page::with_ending(page_path, ".install")
}

/// What [`settle`] has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    /// Nothing but to remove files without a meaning.
    Kept,
    /// A received page file has become the one in use.
    Installed,
}

/// Makes the received page file the one in use. To be called when the log's mark at the snapshot is
/// durable, and never before.
///
/// # Errors
/// [`Error::Storage`]; the next start does it again.
pub fn commit(disk: &Arc<dyn Disk>, page_path: &Path) -> Result<(), Error> {
    rename(disk, &install_path(page_path), page_path)
}

/// Removes a received page file that is not to be used: Raft did not want the snapshot.
///
/// # Errors
/// [`Error::Storage`]; the next start does it again.
pub fn discard(disk: &Arc<dyn Disk>, page_path: &Path) -> Result<(), Error> {
    Ok(page::remove_unfinished(disk, &install_path(page_path))?)
}

/// Whether there is a received page file of which the log has to say whether it counts: then it
/// must be recovered, and [`settle`] called, before the page file is opened.
///
/// # Errors
/// [`Error::Storage`].
pub fn awaits_decision(disk: &Arc<dyn Disk>, page_path: &Path) -> Result<bool, Error> {
    exists(disk, &install_path(page_path))
}

/// At the start, before the page file is opened: completes the installation of a received page file
/// if the log says that it was decided, and removes everything else that snapshots have left.
///
/// `log_mark` is the last entry that the log has dropped. It says "decided" when it is beyond the
/// page file in use: for nothing else moves it there.
///
/// # Errors
/// [`Error::Storage`]: a file cannot be read, or a received one is needed and damaged. Nothing was
/// removed that may be needed.
pub fn settle(
    disk: &Arc<dyn Disk>,
    page_path: &Path,
    log_mark: u64,
    options: &Options,
) -> Result<Settled, Error> {
    page::remove_unfinished(disk, &receive_path(page_path))?;
    let received = install_path(page_path);
    if !exists(disk, &received)? {
        return Ok(Settled::Kept);
    }
    let index_of = |path: &Path| -> Result<u64, Error> {
        let page = PageFile::open(disk, path, options.clone())?;
        Ok(page.meta().consistent_index)
    };
    let behind = !exists(disk, page_path)? || index_of(page_path)? < log_mark;
    if behind && index_of(&received)? >= log_mark {
        commit(disk, page_path)?;
        tracing::info!(log_mark, "installed the received snapshot");
        return Ok(Settled::Installed);
    }
    discard(disk, page_path)?;
    tracing::info!(
        log_mark,
        "removed a received snapshot that was not installed"
    );
    Ok(Settled::Kept)
}

/// Renames a file durably.
pub(super) fn rename(disk: &Arc<dyn Disk>, from: &Path, to: &Path) -> Result<(), Error> {
    disk.rename(from, to)
        .map_err(page::Error::io("rename a received file"))?;
    let directory = to.parent().unwrap_or(Path::new(""));
    disk.sync_dir(directory)
        .map_err(page::Error::io("sync the directory"))?;
    Ok(())
}

fn exists(disk: &Arc<dyn Disk>, path: &Path) -> Result<bool, Error> {
    let exists = disk.exists(path);
    Ok(exists.map_err(page::Error::io("look for a page file"))?)
}
