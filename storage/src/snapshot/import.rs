//! Receiving: a new page file from a stream of bytes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use ferrite_api::types::{ClusterId, Revision};
use ferrite_disk::Disk;

use super::Error;
use super::format::{Frame, Header, Reader, Totals};
use super::install::{self, install_path, receive_path};
use crate::page::{self, ConfState, Filling, MetaUpdate, Options, RowWrite};
use crate::state::State;

/// A snapshot being received. Dropping it removes what has been written, as far as that works; what
/// is left then, the next one or the next start removes.
///
/// Only one at a time, and none while a received one is neither committed nor discarded.
#[derive(Debug)]
pub struct Import {
    /// `None` after a failure.
    receiving: Option<Receiving>,
}

/// A snapshot, received and durable as `db.install`.
#[derive(Debug)]
pub struct Received {
    /// The last entry that is in it.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// Raft's configuration as of that entry.
    pub conf_state: ConfState,
    /// The state, over the received page file.
    pub state: State,
}

impl Import {
    /// Begins to receive a snapshot for this member, whose page file is at `page_path`.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn begin(
        disk: Arc<dyn Disk>,
        page_path: &Path,
        options: Options,
        member_id: u64,
        cluster_id: u64,
    ) -> Result<Self, Error> {
        let side = SideFile {
            disk,
            path: receive_path(page_path),
        };
        page::remove_unfinished(&side.disk, &side.path)?;
        let filling = Filling::create(&side.disk, &side.path, options, cluster_id, member_id)?;
        let receiving = Receiving {
            filling,
            side,
            page_path: page_path.to_owned(),
            cluster_id,
            reader: Reader::default(),
            header: None,
            last: Revision::new(-1, 0),
            found: Totals::default(),
            end: None,
        };
        Ok(Self {
            receiving: Some(receiving),
        })
    }

    /// Takes the next bytes of the stream, which may be cut anywhere. Writes to the disk now and
    /// then, a few megabytes at a time; more is not kept in memory.
    ///
    /// # Errors
    /// [`Error::Stream`], [`Error::Storage`]. What was written is removed, and the import is over.
    pub fn piece(&mut self, piece: Bytes) -> Result<(), Error> {
        let Some(receiving) = &mut self.receiving else {
            return Err(failed_before());
        };
        let taken = receiving.piece(&piece);
        if taken.is_err() {
            self.receiving = None;
        }
        taken
    }

    /// Ends the stream: verifies that it was complete, makes the file durable, restores the state
    /// from it, and only then calls it `db.install`.
    ///
    /// # Errors
    /// As [`Import::piece`].
    pub fn finish(self) -> Result<Received, Error> {
        self.receiving.ok_or_else(failed_before)?.finish()
    }
}

fn failed_before() -> Error {
    Error::stream("the import has failed before")
}

/// The file being written. Removed when this is dropped, unless it has got another name.
#[derive(Debug)]
struct SideFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl Drop for SideFile {
    fn drop(&mut self) {
        if let Err(error) = page::remove_unfinished(&self.disk, &self.path) {
            tracing::warn!(%error, "cannot remove the file of an unfinished snapshot");
        }
    }
}

#[derive(Debug)]
struct Receiving {
    // In this order: the page file is closed before it is removed.
    filling: Filling,
    side: SideFile,
    page_path: PathBuf,
    cluster_id: u64,
    reader: Reader,
    header: Option<Header>,
    /// Of the last row.
    last: Revision,
    /// What has come so far.
    found: Totals,
    /// What has been sent, once the end is there.
    end: Option<Totals>,
}

impl Receiving {
    fn piece(&mut self, piece: &[u8]) -> Result<(), Error> {
        self.reader.push(piece);
        loop {
            if self.end.is_some() && self.reader.pending() > 0 {
                return Err(Error::stream("goes on after its end"));
            }
            let Some(frame) = self.reader.next().map_err(Error::stream)? else {
                return Ok(());
            };
            match (frame, &self.header) {
                (Frame::Header(header), None) => {
                    self.check(&header).map_err(Error::stream)?;
                    self.header = Some(header);
                }
                (Frame::Header(_), Some(_)) => return Err(Error::stream("has a second header")),
                (_, None) => return Err(Error::stream("does not begin with its header")),
                (Frame::SmallRow { table, key, value }, Some(_)) => {
                    if self.found.rows > 0 {
                        let what = format!("a row of table {} after other rows", table.name());
                        return Err(Error::stream(what));
                    }
                    self.found.small_rows += 1;
                    self.filling.small_row(table, key, value)?;
                }
                (Frame::Row { id, digest, record }, Some(header)) => {
                    let row = RowWrite {
                        revision: id.revision,
                        tombstone: id.tombstone,
                        record,
                    };
                    check_row(&row, digest, self.last, header).map_err(Error::stream)?;
                    self.last = row.revision;
                    self.found.rows += 1;
                    self.found.digest = self.found.digest.wrapping_add(digest);
                    self.filling.row(row)?;
                }
                (Frame::End(totals), Some(_)) => {
                    check_totals("sent", &totals, "received", &self.found)?;
                    self.end = Some(totals);
                }
            }
        }
    }

    fn check(&self, header: &Header) -> Result<(), String> {
        if header.cluster_id != self.cluster_id {
            return Err(format!(
                "is of cluster {}, this member belongs to cluster {}",
                ClusterId::new(header.cluster_id),
                ClusterId::new(self.cluster_id)
            ));
        }
        let Header {
            index,
            term,
            revision,
            compacted,
            ..
        } = header;
        let voters = header.conf_state().voters.len();
        if *index == 0 || *term == 0 || voters == 0 {
            return Err(format!(
                "is as of raft index {index} of term {term}, with {voters} voters"
            ));
        }
        if *revision < 1 || !(-1..=*revision).contains(compacted) {
            return Err(format!(
                "is at revision {revision} and compacted to {compacted}"
            ));
        }
        Ok(())
    }

    fn finish(self) -> Result<Received, Error> {
        let (Some(header), Some(sent)) = (self.header, self.end) else {
            let what = format!(
                "ends early, after {} rows and {} small ones",
                self.found.rows, self.found.small_rows
            );
            return Err(Error::stream(what));
        };
        let conf_state = header.conf_state();
        let page = self.filling.finish(MetaUpdate {
            consistent_index: Some(header.index),
            term: Some(header.term),
            revision: Some(header.revision),
            scheduled_compact: Some(header.compacted),
            finished_compact: Some(header.compacted),
            storage_version: Some(header.storage_version),
            conf_state: Some(conf_state.clone()),
        })?;
        let meta = page.meta();
        let written = Totals {
            rows: meta.rows,
            small_rows: meta.table_rows,
            digest: meta.digest,
        };
        check_totals("sent", &sent, "written", &written)?;
        // Reads all of it back.
        let state = State::restore(Arc::new(page))?;
        let side = self.side;
        install::rename(&side.disk, &side.path, &install_path(&self.page_path))?;
        Ok(Received {
            index: header.index,
            term: header.term,
            conf_state,
            state,
        })
    }
}

fn check_row(row: &RowWrite, digest: u64, last: Revision, header: &Header) -> Result<(), String> {
    let revision = row.revision;
    if revision <= last {
        return Err(format!("row {revision} comes after row {last}"));
    }
    if revision.main > header.revision {
        return Err(format!(
            "row {revision} is beyond revision {}",
            header.revision
        ));
    }
    let id = page::RowId {
        revision,
        tombstone: row.tombstone,
    };
    let computed = page::record_digest(id, &row.record).map_err(|error| error.to_string())?;
    if computed != digest {
        return Err(format!(
            "row {revision} has digest {digest:016x}, {computed:016x} is computed"
        ));
    }
    Ok(())
}

fn check_totals(first: &str, expected: &Totals, second: &str, found: &Totals) -> Result<(), Error> {
    match expected == found {
        true => Ok(()),
        false => Err(Error::stream(format!(
            "{expected:?} {first}, {found:?} {second}"
        ))),
    }
}
