//! Sending: the state as of one applied entry, as a stream of bytes.

use std::fmt;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::format::{Header, Totals, Writer};
use super::rows::Rows;
use super::{Error, Limits};
use crate::leases;
use crate::page::{ConfState, TableWrite};
use crate::state::State;

impl State {
    /// Captures the state as of the last applied entry, to be sent to another member. Reads nothing
    /// from the disk, and copies nothing but what the small tables hold.
    pub fn export(&self) -> Export {
        self.expect_conf_state();
        let rows = Rows::of(self);
        let header = Header {
            cluster_id: self.cluster_id().get(),
            index: self.applied().get(),
            term: self.applied_term().get(),
            revision: rows.revision(),
            compacted: rows.compacted(),
            storage_version: rows.meta().storage_version.clone(),
            ..Header::default()
        };
        let leases: Vec<_> = self.leases().iter().collect();
        let leases = leases.into_iter().map(|(id, lease)| leases::row(id, lease));
        Export {
            header: header.with_conf_state(self.conf_state().clone()),
            small: Box::new(self.cluster_rows().into_iter().chain(leases)),
            small_rows: 0,
            rows,
            writer: Writer::default(),
            phase: Phase::Begin,
            limits: Limits::default(),
        }
    }
}

/// A state on its way to another member; see the [module](super). It may be used on any thread; it
/// holds no transaction of the page file between two pieces.
pub struct Export {
    header: Header,
    /// The small tables as they are in memory.
    small: Box<dyn Iterator<Item = TableWrite> + Send>,
    /// Those of them that were sent.
    small_rows: u64,
    rows: Rows,
    writer: Writer,
    phase: Phase,
    limits: Limits,
}

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
        self.rows.meta().live_bytes + self.rows.bytes_beside()
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
        while !is_full(&self.writer, &self.limits) {
            match self.phase {
                Phase::Begin => {
                    self.rows.begin()?;
                    self.writer.header(&self.header);
                    self.phase = Phase::SmallRows;
                }
                Phase::SmallRows => match self.small.next() {
                    Some(write) => self.small_row(&write),
                    None => self.phase = Phase::Rows,
                },
                Phase::Rows => {
                    let (writer, limits) = (&mut self.writer, &self.limits);
                    let more = self.rows.step(limits, &mut |id, digest, record| {
                        writer.row(id, digest, record);
                        match is_full(writer, limits) {
                            true => ControlFlow::Break(()),
                            false => ControlFlow::Continue(()),
                        }
                    })?;
                    if !more {
                        let (rows, digest) = self.rows.found();
                        self.writer.end(&Totals {
                            rows,
                            small_rows: self.small_rows,
                            digest,
                        });
                        self.phase = Phase::Done;
                    }
                }
                Phase::Done | Phase::Failed => return Ok(()),
            }
        }
        Ok(())
    }

    fn small_row(&mut self, write: &TableWrite) {
        if let TableWrite::Put { table, key, value } = write {
            self.writer.small_row(*table, key, value);
            self.small_rows += 1;
        }
    }
}

fn is_full(writer: &Writer, limits: &Limits) -> bool {
    writer.piece.len() >= limits.piece_bytes
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use ferrite_api::pb::mvccpb::KeyValue;
    use ferrite_api::types::Revision;
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
        export.rows.next = Revision::new(4, 0);
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
