//! A snapshot for clients: the state as of one applied entry, as the file that etcd would send.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;

use bytes::Bytes;
use ferrite_api::types::{LeaseId, Revision};
use sha2::{Digest, Sha256};

use super::layout::{self, BUCKETS, KEY, LEASE, META};
use crate::bolt::{self, Contents, Tail, Writer};
use crate::leases::{self, Lease};
use crate::mvcc::bucket_key::{self, BucketKey};
use crate::page::{ConfState, Meta, TableWrite};
use crate::snapshot::{Error, Limits, Rows};
use crate::state::State;

/// Bytes of what follows the file: its SHA-256.
pub const CHECKSUM_BYTES: usize = 32;

/// What a row of the page file counts for in [`Meta::live_bytes`] beside its record, at least.
const ROW_OVERHEAD: u64 = 19;

impl State {
    /// Captures the state as of the last applied entry, to be sent to a client. Reads nothing from
    /// the disk, and copies nothing but what the small tables hold.
    pub fn backup(&self) -> Backup {
        self.expect_conf_state();
        let mut leases: Vec<_> = self.leases().iter().collect();
        // In the order of their keys, in which negative ones come last.
        leases.sort_unstable_by_key(|(id, _)| id.get().cast_unsigned());
        let rows = Rows::of(self);
        Backup {
            index: self.applied().get(),
            term: self.applied_term().get(),
            conf_state: self.conf_state().clone(),
            cluster: self.cluster_rows(),
            small: BTreeMap::new(),
            leases: leases.into_iter(),
            phase: Phase::Begin,
            limits: Limits::default(),
            sum: Sha256::new(),
            rows,
        }
    }
}

/// A snapshot on its way to a client. It may be used on any thread; it holds no transaction of the
/// page file between two pieces.
pub struct Backup {
    index: u64,
    term: u64,
    conf_state: ConfState,
    /// The small tables that are in memory, but for the leases.
    cluster: Vec<TableWrite>,
    /// The rows of the small buckets, but for the leases.
    small: BTreeMap<&'static str, BTreeMap<Bytes, Bytes>>,
    leases: std::vec::IntoIter<(LeaseId, Lease)>,
    rows: Rows,
    phase: Phase,
    limits: Limits,
    /// Of the pieces so far.
    sum: Sha256,
}

enum Phase {
    Begin,
    /// Buckets, by their place in [`BUCKETS`]; whether this one has begun.
    Bucket(Writer, usize, bool),
    Tail(Tail),
    Done,
    Failed,
}

impl fmt::Debug for Backup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backup")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl Backup {
    /// The same backup in pieces of another size.
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The last entry that is in it.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The store revision that is in it.
    pub fn revision(&self) -> i64 {
        self.rows.revision()
    }

    /// The version of the form in which the state is stored.
    pub fn storage_version(&self) -> &str {
        &self.rows.meta().storage_version
    }

    /// To be called once, before the first piece: how many bytes the file will have. Reads a little
    /// from the page file.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn begin(&mut self) -> Result<u64, Error> {
        self.rows.begin()?;
        self.collect_small()?;
        let contents = BUCKETS.map(|bucket| {
            let contents = match bucket {
                KEY => self.key_contents(),
                LEASE => self.lease_contents(),
                small => self.small_contents(small),
            };
            (Bytes::from_static(bucket.as_bytes()), contents)
        });
        let writer = Writer::new(contents);
        let bytes = writer.len();
        self.phase = Phase::Bucket(writer, 0, false);
        Ok(bytes)
    }

    /// Gives up what it holds of the state's moment and does not need any more, if the page file has it by
    /// now. [`Backup::next_piece`] does it, too.
    pub fn let_go(&mut self) {
        self.rows.let_go();
    }

    /// The client does not take anything: until the next piece is asked for, compactions wait no longer for
    /// this than for other readers.
    pub fn rest(&mut self) {
        self.rows.let_go();
        self.rows.hold(false);
    }

    /// The next piece of the file: at least one byte, about [`Limits::piece_bytes`]. `None` after the
    /// last. Reads the page file for some milliseconds, in short transactions.
    ///
    /// # Errors
    /// [`Error::Overtaken`], [`Error::Storage`]. It is over then.
    pub fn next_piece(&mut self) -> Result<Option<Bytes>, Error> {
        self.rows.hold(true);
        match self.piece() {
            Ok(piece) if piece.is_empty() => Ok(None),
            Ok(piece) => {
                self.sum.update(&piece);
                Ok(Some(piece))
            }
            Err(error) => {
                self.phase = Phase::Failed;
                Err(error)
            }
        }
    }

    /// The SHA-256 of all pieces so far.
    pub fn checksum(&self) -> [u8; CHECKSUM_BYTES] {
        self.sum.clone().finalize().into()
    }

    /// The next piece; empty at the end.
    fn piece(&mut self) -> Result<Bytes, Error> {
        loop {
            match std::mem::replace(&mut self.phase, Phase::Failed) {
                Phase::Begin => {
                    self.begin()?;
                }
                Phase::Bucket(writer, at, _) if at == BUCKETS.len() => {
                    self.phase = Phase::Tail(writer.finish().map_err(unexpected)?);
                }
                Phase::Bucket(mut writer, at, has_begun) => {
                    let ends = self.fill(&mut writer, BUCKETS[at], has_begun)?;
                    let piece = match writer.ready() >= self.limits.piece_bytes {
                        true => writer.take(),
                        false => Bytes::new(),
                    };
                    self.phase = Phase::Bucket(writer, at + usize::from(ends), !ends);
                    if !piece.is_empty() {
                        return Ok(piece);
                    }
                }
                Phase::Tail(mut tail) => {
                    let piece = tail.take(self.limits.piece_bytes);
                    self.phase = match piece.is_empty() {
                        true => Phase::Done,
                        false => Phase::Tail(tail),
                    };
                    return Ok(piece);
                }
                Phase::Done => {
                    self.phase = Phase::Done;
                    return Ok(Bytes::new());
                }
                Phase::Failed => return Err(Error::stream("the backup has failed before")),
            }
        }
    }

    /// Writes a part of a bucket. Whether it is complete.
    fn fill(
        &mut self,
        writer: &mut Writer,
        bucket: &'static str,
        has_begun: bool,
    ) -> Result<bool, Error> {
        if !has_begun {
            writer
                .bucket(Bytes::from_static(bucket.as_bytes()))
                .map_err(unexpected)?;
        }
        match bucket {
            KEY => {
                let (limits, mut failure) = (self.limits, None);
                let more = self.rows.step(&limits, &mut |id, _, record| {
                    let key = BucketKey::new(id.revision, id.tombstone);
                    failure = writer.put(key.as_slice(), record).err();
                    match failure.is_some() || writer.ready() >= limits.piece_bytes {
                        true => ControlFlow::Break(()),
                        false => ControlFlow::Continue(()),
                    }
                })?;
                failure.map_or(Ok(!more), |failure| Err(unexpected(failure)))
            }
            LEASE => {
                while writer.ready() < self.limits.piece_bytes {
                    let Some((id, lease)) = self.leases.next() else {
                        return Ok(true);
                    };
                    if let TableWrite::Put { key, value, .. } = leases::row(id, lease) {
                        writer.put(&key, &value).map_err(unexpected)?;
                    }
                }
                Ok(false)
            }
            small => {
                for (key, value) in self.small.remove(small).into_iter().flatten() {
                    writer.put(&key, &value).map_err(unexpected)?;
                }
                Ok(true)
            }
        }
    }

    fn collect_small(&mut self) -> Result<(), Error> {
        for write in std::mem::take(&mut self.cluster) {
            let TableWrite::Put { table, key, value } = write else {
                continue;
            };
            let (key, value) =
                layout::to_etcd(table, key, value).map_err(|what| crate::Error::Corrupt {
                    what: format!("a row of table {}: {what}", table.name()),
                })?;
            let rows = self.small.entry(layout::bucket(table)).or_default();
            rows.insert(key, value);
        }
        let meta = self.meta_rows();
        self.small.insert(META, meta);
        Ok(())
    }

    fn meta_rows(&self) -> BTreeMap<Bytes, Bytes> {
        let number = |number: u64| Bytes::copy_from_slice(&number.to_be_bytes());
        let mut rows = vec![
            (layout::CONSISTENT_INDEX, number(self.index)),
            (layout::TERM, number(self.term)),
            (layout::CONF_STATE, layout::conf_state(&self.conf_state)),
        ];
        if !self.storage_version().is_empty() {
            let version = Bytes::from(self.storage_version().to_owned());
            rows.push((layout::STORAGE_VERSION, version));
        }
        if self.rows.compacted() >= 0 {
            // What a compaction dooms is not in the file, whether or not it is removed here.
            let key = BucketKey::new(Revision::new(self.rows.compacted(), 0), false);
            let key = Bytes::copy_from_slice(key.as_slice());
            rows.push((layout::SCHEDULED_COMPACT, key.clone()));
            rows.push((layout::FINISHED_COMPACT, key));
        }
        let rows = rows.into_iter();
        rows.map(|(key, value)| (Bytes::from_static(key.as_bytes()), value))
            .collect()
    }

    fn key_contents(&self) -> Contents {
        let meta: &Meta = self.rows.meta();
        // Rows that a compaction dooms are counted and not sent; and what `live_bytes` counts beside
        // records is more, for rows of several parts, and includes the small tables. So this is a
        // bound, and without them it is exact.
        let records = meta.live_bytes.saturating_sub(ROW_OVERHEAD * meta.rows);
        let mut contents = Contents {
            entries: meta.rows,
            bytes: records + meta.rows * bucket_key::MAX_BYTES as u64,
            longest_key: bucket_key::MAX_BYTES as u64,
        };
        for row in self.rows.beside() {
            contents.add(bucket_key::MAX_BYTES, row.record.len());
        }
        contents
    }

    fn lease_contents(&self) -> Contents {
        let mut contents = Contents::default();
        for (id, lease) in self.leases.as_slice() {
            if let TableWrite::Put { key, value, .. } = leases::row(*id, *lease) {
                contents.add(key.len(), value.len());
            }
        }
        contents
    }

    fn small_contents(&self, bucket: &str) -> Contents {
        let mut contents = Contents::default();
        for (key, value) in self.small.get(bucket).into_iter().flatten() {
            contents.add(key.len(), value.len());
        }
        contents
    }
}

/// The counters of the page file are wrong.
fn unexpected(error: bolt::Error) -> Error {
    let what = format!("a snapshot for clients: {error}");
    crate::Error::Corrupt { what }.into()
}
