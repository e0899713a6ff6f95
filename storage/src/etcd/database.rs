//! etcd's database file: a snapshot, or the one in a data directory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use ferrite_api::types::Revision;
use ferrite_disk::{DiskFile, SECTOR_BYTES};
use sha2::{Digest, Sha256};

use super::layout::{self, KEY, META};
use super::{CHECKSUM_BYTES, Error};
use crate::bolt::{self, BoltFile, Bucket, Entry};
use crate::mvcc::bucket_key::{self, BucketKey};
use crate::mvcc::hash::KeyValueHash;
use crate::mvcc::record_head;

/// Bytes that are read at once for the checksum.
const READ_BYTES: usize = 1 << 20;

/// Is told how many bytes of how many are done.
pub type Progress<'p> = dyn FnMut(u64, u64) + 'p;

/// An open database file. It is read only.
#[derive(Debug)]
pub struct Database {
    bolt: BoltFile,
}

/// What the bucket `meta` says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Meta {
    /// The last entry of the log that is in the file; 0 if it is not said.
    pub consistent_index: u64,
    /// The term of that entry; 0 if it is not said, as in files of etcd 3.4.
    pub term: u64,
    /// The newest compaction that was applied; -1 before the first.
    pub scheduled_compact: i64,
    /// The newest compaction whose rows are all removed; -1 before the first.
    pub finished_compact: i64,
    /// The storage version; empty if it is not said, as in files of etcd 3.5 and before.
    pub storage_version: String,
}

/// What `snapshot status` says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// CRC-32C over every bucket: its name, then each key and value.
    pub hash: u32,
    /// The revision of the newest row.
    pub revision: i64,
    /// Keys that exist.
    pub total_key: u64,
    /// Bytes of the pages.
    pub total_size: u64,
    /// The storage version, if it is said.
    pub version: String,
}

/// Why there is no hash.
#[derive(Debug, thiserror::Error)]
pub enum HashKvError {
    /// The revision is below the last compaction.
    #[error("mvcc: required revision has been compacted")]
    Compacted,
    /// The revision is above the newest.
    #[error("mvcc: required revision is a future revision")]
    Future,
    /// The file.
    #[error(transparent)]
    File(#[from] Error),
}

/// A row of the key space.
pub(super) struct Row {
    pub(super) revision: Revision,
    pub(super) tombstone: bool,
    pub(super) record: Bytes,
}

impl Database {
    /// Opens a file.
    ///
    /// # Errors
    /// As [`BoltFile::open`].
    pub fn open(file: Arc<dyn DiskFile>) -> Result<Self, Error> {
        Ok(Self {
            bolt: BoltFile::open(file)?,
        })
    }

    /// Bytes of its pages.
    pub fn len(&self) -> u64 {
        self.bolt.len()
    }

    /// Never: there are always the meta pages.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// What the bucket `meta` says.
    ///
    /// # Errors
    /// The file is damaged, or no database of etcd's.
    pub fn meta(&self) -> Result<Meta, Error> {
        let mut meta = Meta {
            scheduled_compact: -1,
            finished_compact: -1,
            ..Meta::default()
        };
        let Some(bucket) = self.bolt.bucket(META.as_bytes())? else {
            return Err(Error::bucket(META, "is not there: no database of etcd's"));
        };
        for entry in self.bolt.entries(&bucket) {
            let Entry::Pair { key, value } = entry? else {
                continue;
            };
            let wrong = |what| Error::bucket(META, format!("\"{}\": {what}", key.escape_ascii()));
            let number = || match <[u8; 8]>::try_from(&value[..]) {
                Ok(bytes) => Ok(u64::from_be_bytes(bytes)),
                Err(_) => Err(wrong(format!("{} bytes are no number", value.len()))),
            };
            let revision = || match bucket_key::parse(&value) {
                Ok((revision, _)) => Ok(revision.main),
                Err(what) => Err(wrong(what)),
            };
            match std::str::from_utf8(&key) {
                Ok(layout::CONSISTENT_INDEX) => meta.consistent_index = number()?,
                Ok(layout::TERM) => meta.term = number()?,
                Ok(layout::SCHEDULED_COMPACT) => meta.scheduled_compact = revision()?,
                Ok(layout::FINISHED_COMPACT) => meta.finished_compact = revision()?,
                Ok(layout::STORAGE_VERSION) => {
                    meta.storage_version = String::from_utf8_lossy(&value).into_owned();
                }
                _ => {}
            }
        }
        Ok(meta)
    }

    /// What is wrong with the pages.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn faults(&self) -> Result<Vec<bolt::Fault>, Error> {
        Ok(bolt::check(&self.bolt)?)
    }

    /// Sums the file up, as etcd does. Remembers every key that exists.
    ///
    /// # Errors
    /// The file is damaged. The text about a key that is none is etcd's.
    pub fn status(&self, progress: &mut Progress<'_>) -> Result<Status, Error> {
        let mut status = Status {
            total_size: self.len(),
            version: self.meta()?.storage_version,
            ..Status::default()
        };
        let mut done = 0;
        let mut keys = HashSet::new();
        for entry in self.bolt.entries(&self.bolt.root()) {
            let Entry::Bucket { name, bucket } = entry? else {
                continue;
            };
            let mut add = |bytes: &[u8]| status.hash = crc32c::crc32c_append(status.hash, bytes);
            add(&name);
            for entry in self.bolt.entries(&bucket) {
                let Entry::Pair { key, value } = entry? else {
                    continue;
                };
                add(&key);
                add(&value);
                done += (key.len() + value.len()) as u64;
                progress(done, status.total_size);
                if name[..] != *KEY.as_bytes() {
                    continue;
                }
                let (revision, tombstone) = bucket_key::parse(&key).map_err(|what| {
                    Error::bucket(
                        KEY,
                        format!("cannot parse revision key: {key:?} err: {what}"),
                    )
                })?;
                let head = record_head(revision, &value)?;
                match tombstone {
                    true => keys.remove(&head.key[..]),
                    false => keys.insert(Box::<[u8]>::from(&head.key[..])),
                };
                status.revision = revision.main;
            }
        }
        status.total_key = keys.len() as u64;
        Ok(status)
    }

    /// The hash of the key space at a revision (0: the newest), as members compare it. Remembers every
    /// key that exists.
    ///
    /// # Errors
    /// The file is damaged; there is no hash at this revision.
    pub fn hash_kv(&self, revision: i64) -> Result<KeyValueHash, HashKvError> {
        let meta = self.meta()?;
        let compacted = meta.scheduled_compact.max(meta.finished_compact);
        let mut newest = compacted.max(1);
        let at = if revision == 0 { i64::MAX } else { revision };
        // What a compaction to this revision would leave, without tombstones.
        let mut living: HashMap<Box<[u8]>, Revision> = HashMap::new();
        for row in self.rows()? {
            let row = row?;
            newest = newest.max(row.revision.main);
            if row.revision.main > at {
                continue;
            }
            let head = record_head(row.revision, &row.record).map_err(Error::from)?;
            match row.tombstone {
                true => living.remove(&head.key[..]),
                false => living.insert(Box::from(&head.key[..]), row.revision),
            };
        }
        let at = at.min(newest);
        if revision > newest {
            return Err(HashKvError::Future);
        }
        if at < compacted {
            return Err(HashKvError::Compacted);
        }
        let kept: HashSet<Revision> = living.into_values().collect();
        let mut hash = crc32c::crc32c(KEY.as_bytes());
        for row in self.rows()? {
            let row = row?;
            let main = row.revision.main;
            let old = main <= compacted && !kept.is_empty() && !kept.contains(&row.revision);
            if main > at || old || main == compacted && row.tombstone {
                continue;
            }
            let key = BucketKey::new(row.revision, row.tombstone);
            hash = crc32c::crc32c_append(hash, key.as_slice());
            hash = crc32c::crc32c_append(hash, &row.record);
        }
        Ok(KeyValueHash {
            hash,
            compact_revision: compacted,
            revision: at,
        })
    }

    /// The rows of the key space, in order.
    pub(super) fn rows(&self) -> Result<impl Iterator<Item = Result<Row, Error>>, Error> {
        Ok(self.pairs(KEY)?.map(|pair| {
            let (key, record) = pair?;
            let (revision, tombstone) = bucket_key::parse(&key)
                .map_err(|what| Error::bucket(KEY, format!("{key:?}: {what}")))?;
            Ok(Row {
                revision,
                tombstone,
                record,
            })
        }))
    }

    /// The pairs of a bucket; none if it is not there.
    pub(super) fn pairs(
        &self,
        name: &'static str,
    ) -> Result<impl Iterator<Item = Result<(Bytes, Bytes), Error>>, Error> {
        let bucket: Option<Bucket> = self.bolt.bucket(name.as_bytes())?;
        let entries = bucket.map(|bucket| self.bolt.entries(&bucket));
        Ok(entries.into_iter().flatten().map(move |entry| match entry {
            Ok(Entry::Pair { key, value }) => Ok((key, value)),
            Ok(Entry::Bucket { .. }) => Err(Error::bucket(name, "there is a bucket in it")),
            Err(error) => Err(error.into()),
        }))
    }
}

/// Whether a file has a checksum at its end: then it is whole sectors and 32 bytes long.
pub fn has_checksum(bytes: u64) -> bool {
    bytes % SECTOR_BYTES as u64 == CHECKSUM_BYTES as u64
}

/// Compares the checksum at the end of a file with its content. Reads all of it.
///
/// # Errors
/// There is none, or another one, or the file cannot be read.
pub fn verify_checksum(file: &dyn DiskFile, progress: &mut Progress<'_>) -> Result<(), Error> {
    let bytes = file.len()?;
    if !has_checksum(bytes) {
        return Err(Error::NoChecksum);
    }
    let content = bytes - CHECKSUM_BYTES as u64;
    let (mut sum, mut buffer, mut at) = (Sha256::new(), vec![0; READ_BYTES], 0);
    while at < content {
        let piece = usize::try_from(content - at).map_or(READ_BYTES, |left| left.min(READ_BYTES));
        file.read_at(&mut buffer[..piece], at)?;
        sum.update(&buffer[..piece]);
        at += piece as u64;
        progress(at, content);
    }
    let mut expected = [0; CHECKSUM_BYTES];
    file.read_at(&mut expected, content)?;
    let found: [u8; CHECKSUM_BYTES] = sum.finalize().into();
    match expected == found {
        true => Ok(()),
        false => Err(Error::Checksum { expected, found }),
    }
}
