//! Rebuilding a page file: its rows, densely packed, in a new file.
//!
//! The new file is made and made durable under another name, compared with the old one, and then
//! renamed over it. So at every instant there is one whole file of the right name, with the same
//! content; a crash leaves at most the beginnings of a new file, which the next attempt, and the
//! next start of the member, remove.
//!
//! ```text
//!   rows by revision   [ copied ............ last ][ not yet copied ...... ]  ◀─ commits append here
//!                        ▲ removed meanwhile: removed from the new file too
//! ```
//!
//! A file in use is copied in steps, and committed to between them. New rows are appended where copying
//! has not come yet; rows are removed anywhere, so those behind it are removed once more. The small tables
//! and the meta record are copied in the last step. So at its end both files are the same, however much
//! was written meanwhile; and nothing has to be kept in memory for it but the names of removed rows.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferrite_api::types::Revision;
use ferrite_disk::Disk;

use super::batch::{MetaUpdate, RowId, RowWrite, Table};
use super::error::Error;
use super::file::{Options, PageFile, Sizes};
use super::fill::{self, Filling};
use super::meta::Meta;
use super::reader::Reader;
use super::tables::META_NAME;
use crate::courtesy::Courtesy;

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

/// Bytes of records that a step copies, if nobody waits for its end.
const STEP_BYTES: usize = 2 << 20;

/// The rebuild of a file that is in use, between two steps.
#[derive(Debug)]
pub struct Rebuild {
    path: PathBuf,
    /// `None` before the first step.
    new: Option<Filling>,
    /// The last row that was copied.
    last: Revision,
    /// Rows up to it that were removed since the last step.
    removed: Vec<RowId>,
    /// Why it shall come to nothing.
    given_up: Option<Error>,
}

/// What a step has come to.
#[derive(Debug)]
pub enum Step {
    /// There is more to do.
    More(Box<Rebuild>),
    /// It is over.
    Ended(Outcome),
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
    let mut rebuild = Box::new(Rebuild::new(path.to_owned()));
    loop {
        rebuild = match rebuild.step(old, STEP_BYTES) {
            Step::More(rebuild) => rebuild,
            Step::Ended(outcome) => {
                if let Outcome::Replaced(new, _) = &outcome {
                    progress(new.meta().rows, new.meta().rows);
                }
                return outcome;
            }
        };
        progress(rebuild.copied(), old.meta().rows);
    }
}

impl Rebuild {
    /// A rebuild of the page file at `path`, of which nothing is done yet.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            new: None,
            last: Revision::new(-1, 0),
            removed: Vec::new(),
            given_up: None,
        }
    }

    /// The next step shall be the last, and leave nothing: the outcome is [`Outcome::Kept`] with `why`.
    pub fn give_up(&mut self, why: Error) {
        self.given_up = Some(why);
    }

    /// Rows that the new file has.
    pub fn copied(&self) -> u64 {
        self.new.as_ref().map_or(0, Filling::written)
    }

    /// A commit between two steps has removed these rows from the old file.
    pub fn removed(&mut self, rows: &[RowId]) {
        let copied = rows.iter().filter(|row| row.revision <= self.last);
        self.removed.extend(copied);
    }

    /// Copies about so many bytes of records, and ends the rebuild if those are the last. Nothing is
    /// committed to the old file meanwhile; nor ever again, if the outcome is a new one.
    pub fn step(mut self: Box<Self>, old: &PageFile, bytes: usize) -> Step {
        match self.copy(old, bytes) {
            Ok(None) => Step::More(self),
            Ok(Some(new)) => Step::Ended(self.replace(old, new)),
            Err(error) => {
                let (disk, _) = old.origin();
                // Best effort: the next attempt removes it too, and the first error is the answer.
                let _ = remove_remains(disk, &self.path);
                Step::Ended(Outcome::Kept(error))
            }
        }
    }

    /// The new file, once it has everything and is durable.
    fn copy(&mut self, old: &PageFile, bytes: usize) -> Result<Option<PageFile>, Error> {
        let meta = old.meta();
        let new = self.new.take();
        if let Some(why) = self.given_up.take() {
            return Err(why);
        }
        let mut new = match new {
            Some(new) => new,
            None => {
                let (disk, options) = old.origin();
                has_room(disk, old, &self.path, options)?;
                remove_remains(disk, &self.path)?;
                let (cluster_id, member_id) = (meta.cluster_id, meta.member_id);
                let fresh = fresh_path(&self.path);
                let options = Options {
                    fill_rate: None,
                    ..options.clone()
                };
                Filling::create(disk, &fresh, options, cluster_id, member_id)?
            }
        };
        new.remove(std::mem::take(&mut self.removed))?;
        let reader = old.reader()?;
        if self.copy_rows(&reader, &mut new, bytes)?.is_break() {
            new.flush()?;
            self.new = Some(new);
            return Ok(None);
        }
        for table in Table::ALL {
            for (key, value) in reader.table(table)? {
                new.small_row(table, key, value)?;
            }
        }
        drop(reader);
        let new = new.finish(everything(&meta))?;
        let found = new.meta();
        if found != meta {
            let what = format!("{meta:?} stored, {found:?} counted");
            return Err(Error::corrupt(META_NAME, what));
        }
        assert!(
            old.meta() == meta,
            "a commit to a file during a step of its rebuild"
        );
        Ok(Some(new))
    }

    /// Copies rows from where the last step has ended. `Continue`: those were all.
    fn copy_rows(
        &mut self,
        reader: &Reader,
        new: &mut Filling,
        bytes: usize,
    ) -> Result<ControlFlow<()>, Error> {
        let (mut copied, mut result) = (0, Ok(ControlFlow::Continue(())));
        let before = self.last;
        let mut courtesy = Courtesy::default();
        reader.scan(before, &mut |revision, tombstone, record| {
            if revision <= before {
                return ControlFlow::Continue(());
            }
            copied += record.len();
            courtesy.worked();
            self.last = revision;
            let row = RowWrite {
                revision,
                tombstone,
                record,
            };
            if let Err(error) = new.row(row) {
                result = Err(error);
                return ControlFlow::Break(());
            }
            if copied >= bytes {
                result = Ok(ControlFlow::Break(()));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        result
    }

    /// Puts the new file in the place of the old one.
    fn replace(&self, old: &PageFile, new: PageFile) -> Outcome {
        let (disk, _) = old.origin();
        let directory = self.path.parent().unwrap_or(Path::new(""));
        let renamed = disk
            .rename(&fresh_path(&self.path), &self.path)
            .map_err(Error::io("rename the new file"))
            .and_then(|()| {
                disk.sync_dir(directory)
                    .map_err(Error::io("sync the directory"))
            });
        if let Err(error) = renamed {
            return Outcome::Unknown(error);
        }
        old.replaced();
        let rebuilt = Rebuilt {
            before: old.sizes(),
            after: new.sizes(),
        };
        Outcome::Replaced(new, rebuilt)
    }
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
